package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	_ "github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment" // the machine's does not reach these tests
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/link"
)

// output collects what is written to it, from any goroutine.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// The test's own program is the child: with this variable it plays Fluent Bit and its plugin.
const playing = "TENANTLOGS_TEST_PLAY"

func TestMain(m *testing.M) {
	switch os.Getenv(playing) {
	case "plugin": // SIGTERM ends it
		fmt.Println("playing")
		select {}
	case "leaving": // what it is told ends it
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("playing")
		_ = link.Receive(func(m link.Message) {
			fmt.Println("leave", m.Leave)
			os.Exit(7)
		})
		os.Exit(8)
	case "exit":
		os.Exit(7)
	}
	os.Exit(m.Run())
}

func arguments(t *testing.T) (dir string, args []string) {
	dir = t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "pods"), 0o755))
	return dir, []string{"-logs", filepath.Join(dir, "pods"), "-db", filepath.Join(dir, "tail.db"), "-catch-up", filepath.Join(dir, "catch-up"), "-grace", "3s", "--", os.Args[0]}
}

func TestOptionsThatMakeNoSenseAreRefusedWithWhatToDo(t *testing.T) {
	for want, args := range map[string][]string{
		"-db is missing: give the `db` of tail":           {"-catch-up", "/x", "--", "true"},
		"-catch-up is missing":                            {"-db", "/x", "--", "true"},
		"the program to run is missing: give it after --": {"-db", "/x", "-catch-up", "/y"},
		"-grace is 10ms: give 1s or more":                 {"-db", "/x", "-catch-up", "/y", "-grace", "10ms", "--", "true"},
		"syntax error in pattern":                         {"-db", "/x", "-catch-up", "/y", "-exclude", "[", "--", "true"},
	} {
		var said output
		require.Equal(t, exitUsage, run(args, io.Discard, &said))
		require.Contains(t, said.String(), want)
	}
	var said output
	require.Zero(t, run([]string{"-h"}, &said, io.Discard))
	require.Contains(t, said.String(), "Usage: tenantlogs-launcher")
}

func TestTheExitStatusIsFluentBits(t *testing.T) {
	t.Setenv(playing, "exit")
	_, args := arguments(t)
	require.Equal(t, 7, run(args, io.Discard, io.Discard))
}

func TestAProgramThatIsNotThereIsTold(t *testing.T) {
	_, args := arguments(t)
	args[len(args)-1] = "/nowhere/fluent-bit"
	var said output
	require.Equal(t, 1, run(args, io.Discard, &said))
	require.Contains(t, said.String(), "failed to start Fluent Bit")
	require.Contains(t, said.String(), "/nowhere/fluent-bit")
}

func TestACatchUpFolderThatCannotBeWrittenToIsTold(t *testing.T) {
	dir, args := arguments(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "catch-up"), nil, 0o600))
	var said output
	require.Equal(t, exitUsage, run(args, io.Discard, &said))
	require.Contains(t, said.String(), "the catch-up folder cannot be used")
}

func TestAtSIGTERMThePluginIsToldToLeave(t *testing.T) {
	t.Setenv(playing, "leaving")
	_, args := arguments(t)
	var out output
	status := make(chan int)
	go func() { status <- run(args, &out, io.Discard) }()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "playing") }, time.Minute, time.Millisecond)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
	require.Equal(t, 7, <-status)
	require.Contains(t, out.String(), "leave 3s\n")
}

func TestASignalsEndIsTold(t *testing.T) {
	t.Setenv(playing, "plugin")
	_, args := arguments(t)
	var out, said output
	status := make(chan int)
	go func() { status <- run(args, &out, &said) }()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "playing") }, time.Minute, time.Millisecond)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
	require.Equal(t, 128+int(syscall.SIGTERM), <-status)
	require.Contains(t, said.String(), "Fluent Bit was ended by a signal")
}

func TestASecondAgentWaitsForTheFirst(t *testing.T) {
	t.Setenv(playing, "plugin")
	dir, args := arguments(t)
	var out, said output
	first := make(chan int)
	go func() { first <- run(args, &out, io.Discard) }()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "playing") }, time.Minute, time.Millisecond)
	signals := make(chan os.Signal, 1)
	type locked struct {
		f   *os.File
		err error
	}
	second := make(chan locked)
	log := logger(&said)
	go func() {
		f, err := lock(filepath.Join(dir, "catch-up"), signals, log)
		second <- locked{f, err}
	}()
	require.Eventually(t, func() bool { return strings.Contains(said.String(), "another agent uses this node's state") }, time.Minute, time.Millisecond)
	// One that is asked to end while it waits ends.
	signals <- syscall.SIGTERM
	got := <-second
	require.NoError(t, got.err)
	require.Nil(t, got.f)
	go func() {
		f, err := lock(filepath.Join(dir, "catch-up"), signals, log)
		second <- locked{f, err}
	}()
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
	<-first
	got = <-second
	require.NoError(t, got.err)
	require.NotNil(t, got.f)
	require.NoError(t, got.f.Close())
}
