// Package iamsimulate compares the decisions of internal/iampolicy's evaluator with those of another
// simulator of IAM, which runs as a process of its own (simulate.mjs): `make iam-differential`.
//
// It must not be known to anything, nor bring the other simulator into anything: README.md says why.
package iamsimulate

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
)

// Simulator is the other simulator's process. It is not safe for concurrent use.
type Simulator struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// Question is one decision to make. Policies are named, and were sent before.
type Question struct {
	ID             int                 `json:"id"`
	Principal      string              `json:"principal"`
	Action         string              `json:"action"`
	Resource       string              `json:"resource"`
	Account        string              `json:"account"` // the resource's
	Context        map[string][]string `json:"context"`
	Identity       []string            `json:"identity,omitempty"`
	Boundary       string              `json:"boundary,omitempty"`
	ResourcePolicy string              `json:"resourcePolicy,omitempty"`
}

// Answer is what it says.
type Answer struct {
	ID int `json:"id"`
	// Result is Allowed, ImplicitlyDenied or ExplicitlyDenied.
	Result string `json:"result"`
	// Ignored are keys of the question's context that AWS's reference does not give to such a request.
	Ignored []string `json:"ignored"`
	// Error says why there is no decision.
	Error string `json:"error"`
}

// Start runs node on the script, in the folder where the simulator is installed.
func Start(node, folder string) (*Simulator, error) {
	s := &Simulator{cmd: exec.Command(node, "simulate.mjs")}
	s.cmd.Dir, s.cmd.Stderr = folder, os.Stderr
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	return s, s.cmd.Start()
}

// Close ends the process.
func (s *Simulator) Close() error {
	return errors.Join(s.in.Close(), s.cmd.Wait())
}

func (s *Simulator) send(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.in.Write(append(text, '\n'))
	return err
}

func (s *Simulator) receive(v any) error {
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the simulator ended: %w", err)
	}
	return json.Unmarshal(line, v)
}

// Policy gives a document its name.
func (s *Simulator) Policy(name string, d *iampolicy.Document) error {
	return s.send(struct {
		Name     string              `json:"policy"`
		Document *iampolicy.Document `json:"document"`
	}{name, d})
}

// Actions are a service's actions, and the version of the reference that the simulator has.
func (s *Simulator) Actions(service string) (actions []string, version string, err error) {
	var reply struct {
		Actions []string
		Version string
	}
	if err := s.send(map[string]string{"actions": service}); err != nil {
		return nil, "", err
	}
	err = s.receive(&reply)
	return reply.Actions, reply.Version, err
}

// Type is a type of resources, with the form of their ARNs: variables are ${…}.
type Type struct{ Name, ARN string }

// Types are the types of an action's resources; none, if it has no resource level.
func (s *Simulator) Types(action string) ([]Type, error) {
	var reply struct {
		Types []Type
		Error string
	}
	if err := s.send(map[string]string{"describe": action}); err != nil {
		return nil, err
	}
	if err := s.receive(&reply); err != nil {
		return nil, err
	}
	if reply.Error != "" {
		return nil, errors.New(action + ": " + reply.Error)
	}
	return reply.Types, nil
}

// Ask asks all questions and hands each answer on, in their order.
func (s *Simulator) Ask(questions []Question, each func(Question, Answer)) error {
	sent := make(chan error, 1)
	go func() {
		for i := range questions {
			if err := s.send(&questions[i]); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i := range questions {
		var a Answer
		if err := s.receive(&a); err != nil {
			return err
		}
		if a.ID != questions[i].ID {
			return fmt.Errorf("answer %d to question %d", a.ID, questions[i].ID)
		}
		each(questions[i], a)
	}
	return <-sent
}
