// Command agent stands for Fluent Bit in the agent's image where there is no Fluent Bit: the project's own host of plugins (e2e/host),
// with as much of tail as follows files that grow and are rotated. It takes the arguments and the configuration that the chart gives
// Fluent Bit.
//
// It is no measure of what Fluent Bit does with files: at its end it remembers how far it read, and it makes no promise over a kill.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

// configuration is what is read of Fluent Bit's.
type configuration struct {
	Service struct {
		Grace   int
		Storage string `json:"storage.path"`
	}
	Pipeline struct {
		Inputs  []map[string]any
		Outputs []map[string]any
	}
}

// state is the file that says how far the files were read, by their device and inode.
const state = "/state/host-of-plugins.json"

func run() error {
	var plugin, file string
	flag.StringVar(&plugin, "plugin", "", "the plugin's .so")
	flag.StringVar(&file, "config", "", "Fluent Bit's configuration, YAML")
	flag.Parse()
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var cfg configuration
	if err := yaml.Unmarshal(text, &cfg); err != nil {
		return err
	}
	i := slices.IndexFunc(cfg.Pipeline.Inputs, func(in map[string]any) bool { return in["name"] == "tail" })
	if i < 0 || len(cfg.Pipeline.Outputs) != 1 {
		return errors.New("the host of plugins has one tail and one output")
	}
	in, out := cfg.Pipeline.Inputs[i], cfg.Pipeline.Outputs[0]
	fmt.Println("the project's own host of plugins: there is no Fluent Bit in this image")

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	workers := 1
	properties := map[string]string{}
	for key, value := range out {
		switch {
		case key == "workers":
			workers = int(value.(float64))
		case key == "name", key == "match", strings.HasPrefix(key, "storage."):
		default:
			properties[key] = fmt.Sprint(value)
		}
	}
	// It ends by Stop, not with the signal's context.
	h, err := host.Start(context.Background(), host.Config{
		Loader: filepath.Join(filepath.Dir(program), "loader"), Plugin: plugin, StorageDir: cfg.Service.Storage, Env: environment.Machine(),
		Outputs: []host.Output{{Match: fmt.Sprint(out["match"]), Workers: workers, Properties: properties}},
		Grace:   time.Duration(cfg.Service.Grace) * time.Second, Retry: host.Retry{Base: time.Second, Cap: 30 * time.Second}, Stderr: os.Stderr,
	})
	if err != nil {
		return err
	}
	t := tail{path: fmt.Sprint(in["path"]), exclude: fmt.Sprint(in["exclude_path"]), tag: fmt.Sprint(in["tag"]), chunker: host.Chunker{Emit: h.Send}, files: map[string]*followed{}, read: map[string]int64{}}
	if text, err := os.ReadFile(state); err == nil {
		if err := json.Unmarshal(text, &t.read); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		if err := t.look(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
	text, err = json.Marshal(t.read)
	if err != nil {
		return err
	}
	if err := os.WriteFile(state, text, 0o600); err != nil {
		return err
	}
	_, err = h.Stop(context.Background())
	return err
}

// tail follows files.
type tail struct {
	path, exclude, tag string
	chunker            host.Chunker
	files              map[string]*followed
	read               map[string]int64 // by device and inode, up to the end of the last whole line
}

// followed is an open file.
type followed struct {
	file *os.File
	tag  string
	rest []byte
	seen time.Time // last under a name that is looked for
}

// rotated files are read on for so long.
const rotateWait = 10 * time.Second

// look reads what has come since the last look.
func (t *tail) look() error {
	paths, err := filepath.Glob(t.path)
	if err != nil {
		return err
	}
	for _, path := range paths {
		if excluded, _ := filepath.Match(t.exclude, path); excluded {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		key := identity(info)
		f := t.files[key]
		if f == nil {
			file, err := os.Open(path)
			if err != nil {
				continue
			}
			f = &followed{file: file, tag: host.ComposeTag(t.tag, path)}
			if _, err := file.Seek(t.read[key], io.SeekStart); err != nil {
				return err
			}
			t.files[key] = f
		}
		f.seen = time.Now()
	}
	for key, f := range t.files {
		if err := t.follow(key, f); err != nil {
			return err
		}
		if time.Since(f.seen) > rotateWait {
			f.file.Close()
			delete(t.files, key)
		}
	}
	return t.chunker.Flush()
}

func identity(info os.FileInfo) string {
	s := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d/%d", s.Dev, s.Ino)
}

// follow gives each whole line to the chunker.
func (t *tail) follow(key string, f *followed) error {
	more, err := io.ReadAll(f.file)
	if err != nil || len(more) == 0 {
		return err
	}
	text := append(f.rest, more...)
	end := bytes.LastIndexByte(text, '\n') + 1
	for line := range bytes.Lines(text[:end]) {
		rec := host.Record{Log: bytes.TrimSuffix(line, []byte("\n")), Broken: true}
		if err := t.chunker.Append(f.tag, time.Now(), rec.AppendBody(nil, nil)); err != nil {
			return err
		}
	}
	f.rest = bytes.Clone(text[end:])
	t.read[key] += int64(end)
	return nil
}
