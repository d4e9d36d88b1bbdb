// Package helm runs the Helm that make chart-tools builds, for the tests of the chart.
package helm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// Find is the path of Helm; root is the repository's folder. The error says how to build it.
func Find(root string) (string, error) {
	path, err := filepath.Abs(filepath.Join(root, "build", "tools", "helm"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no helm at %s: `make chart-tools` builds it", path)
	}
	return path, nil
}

// Run returns what Helm writes to its standard output; its error is what Helm says. home is an
// empty folder, for neither plugins nor settings of whoever runs this count; kubeconfig may be
// empty where no cluster is asked.
func Run(ctx context.Context, binary, home, kubeconfig string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "KUBECONFIG=" + kubeconfig}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", errors.Join(err, errors.New(errs.String()))
	}
	return out.String(), nil
}

// Object is a document of what Helm rendered. What it does not say is empty.
type Object struct {
	Kind, Namespace, Name string
	// Text is its YAML.
	Text string
}

// Objects are the documents that say something, in their order.
func Objects(rendered string) ([]Object, error) {
	var all []Object
	for _, text := range strings.Split("\n"+rendered, "\n---") {
		var said map[string]any
		var known struct {
			Kind     string `json:"kind"`
			Metadata struct {
				Namespace string `json:"namespace"`
				Name      string `json:"name"`
			} `json:"metadata"`
		}
		if err := errors.Join(yaml.Unmarshal([]byte(text), &said), yaml.Unmarshal([]byte(text), &known)); err != nil {
			return nil, fmt.Errorf("%w: %s", err, text)
		}
		if len(said) > 0 {
			all = append(all, Object{known.Kind, known.Metadata.Namespace, known.Metadata.Name, text})
		}
	}
	return all, nil
}
