// Command tool is what runs in the pods of package realnode: `tool pause` is a pod's first container, `tool write` writes numbered
// lines. It is static, and has an image of its own.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: tool pause | tool write [flags]")
		os.Exit(2)
	}
	var err error
	switch os.Args[1] {
	case "pause":
		pause()
	case "write":
		err = write(os.Args[2:])
	default:
		err = fmt.Errorf("no command %q", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tool:", err)
		os.Exit(1)
	}
}

// pause waits for SIGTERM, and reaps what a shared process namespace leaves to it.
func pause() {
	end, ended := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(ended, syscall.SIGCHLD)
	for {
		select {
		case <-end:
			return
		case <-ended:
			for {
				if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}
}

// write writes the lines "#<id> <number> xxx… #<number>", numbered from 0, until there were enough or SIGTERM comes. How many they were is then in
// the file that Kubernetes reads a container's last message from.
func write(args []string) error {
	f := flag.NewFlagSet("write", flag.ContinueOnError)
	id := f.String("id", "", "what all of its lines begin with, after #")
	count := f.Int("lines", 0, "how many; 0: until SIGTERM")
	rate := f.Float64("rate", 0, "lines a second; 0: as fast as they are taken")
	size := f.Int("size", 100, "bytes of a line, its end left out")
	stay := f.Bool("stay", false, "wait for SIGTERM once all are written")
	message := f.String("message", "/dev/termination-log", "the file that takes the number at the end")
	if err := f.Parse(args); err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	filler := strings.Repeat("x", *size)
	var line []byte
	began, written := time.Now(), 0
	for ended := false; !ended && (*count == 0 || written < *count); {
		due := written + 1000
		if *rate > 0 {
			due = int(time.Since(began).Seconds() * *rate)
		}
		if *count > 0 {
			due = min(due, *count)
		}
		for ; written < due; written++ {
			line = fmt.Appendf(line[:0], "#%s %d ", *id, written)
			// As long as the beginning without its id and a space.
			end := len(line) - len(*id) - 1
			line = append(line, filler[:max(4, *size-len(line)-end)]...)
			line = fmt.Appendf(line, " #%d", written)
			if _, err := out.Write(append(line, '\n')); err != nil {
				return err
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
		pause := time.Duration(0)
		if *rate > 0 {
			pause = 5 * time.Millisecond
		}
		select {
		case <-end:
			ended, *stay = true, false
		case <-time.After(pause):
		}
	}
	if *stay {
		<-end
	}
	// Outside of a pod there is no such file.
	if file, err := os.OpenFile(*message, os.O_WRONLY|os.O_TRUNC, 0); err == nil {
		_, err = fmt.Fprint(file, written)
		file.Close()
		return err
	}
	return nil
}
