package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
)

// contender is one output.
type contender struct {
	Name    string
	Workers int
	// output is its section, for those that are not ours.
	output func(cw *node.CloudWatch, w work, workers int) string
	load   string // the .so of a peer
	// options are ours; nil for the others.
	options map[string]string
	filter  bool // with the kubernetes filter, which core needs to know the namespace
	// slow is the part of an aggregated work's lines it gets, for what takes minutes there.
	slow float64
	// once: an aggregated work is for the first round only. Core makes a call for each record,
	// which takes minutes; with fewer lines it has fewer chunks to work at side by side, and
	// would look slower than it is.
	once bool
}

func (c contender) String() string { return fmt.Sprintf("%s, workers %d", c.Name, c.Workers) }

// lines is the work as this contender gets it.
func (c contender) of(w work) work {
	if w.Aggregated && c.slow != 0 {
		return w.scaled(c.slow)
	}
	return w
}

func core(workers int) contender {
	return contender{Name: "core", Workers: workers, filter: true, once: true, output: func(cw *node.CloudWatch, w work, workers int) string {
		text := node.CoreOutput(cw, workers)
		if w.Aggregated {
			text += "    log_stream_template $kubernetes['pod_name']\n"
		}
		return text
	}}
}

func null() contender {
	return contender{Name: "null", Workers: 1, filter: true, output: func(*node.CloudWatch, work, int) string { return "    name null\n    match *\n" }}
}

func ours(name string, workers int, more ...string) contender {
	c := contender{Name: name, Workers: workers, options: map[string]string{}}
	for i := 0; i < len(more); i += 2 {
		c.options[more[i]] = more[i+1]
	}
	return c
}

// peers reads $PEERS: name=plugin.so:section.conf, separated by commas. The file holds the
// lines of its [OUTPUT], where {endpoint}, {host}, {port}, {region}, {ca} and {workers} are filled in.
func peers(list string) ([]contender, error) {
	var all []contender
	for _, entry := range strings.Split(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		name, files, ok := strings.Cut(entry, "=")
		so, conf, ok2 := strings.Cut(files, ":")
		if !ok || !ok2 || name == "" {
			return nil, fmt.Errorf("PEERS: %q is not name=plugin.so:section.conf", entry)
		}
		if _, err := os.Stat(so); err != nil {
			return nil, fmt.Errorf("PEERS: %s: %w", name, err)
		}
		section, err := os.ReadFile(conf)
		if err != nil {
			return nil, fmt.Errorf("PEERS: %s: %w", name, err)
		}
		for _, workers := range []int{1, 4} {
			all = append(all, contender{Name: name, Workers: workers, load: so, filter: true, slow: 0.25, output: func(cw *node.CloudWatch, _ work, workers int) string {
				host, port, _ := strings.Cut(strings.TrimPrefix(cw.Endpoint, "https://"), ":")
				return strings.NewReplacer("{endpoint}", cw.Endpoint, "{host}", host, "{port}", port, "{region}", cw.Region, "{ca}", cw.CAFile,
					"{workers}", strconv.Itoa(workers)).Replace(string(section))
			}})
		}
	}
	return all, nil
}
