package delivery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
)

// onlyStream accepts events of one stream only.
func onlyStream(l *logsFunc, stream string) {
	l.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
		if p.Stream != stream {
			return awsclient.Rejected{}, apiError("AccessDeniedException")
		}
		return awsclient.Rejected{}, nil
	}
}

func TestTheLedgerOutlivesTheProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger")
	targets := []Target{{Group: "/g", Stream: "good"}, {Group: "/g", Stream: "bad"}}
	deliver := func(d *Deliverer, key byte, n int) error {
		ev := numbered(n)
		for i := range ev.List {
			ev.List[i].Dest = i % 2
		}
		return d.Deliver(context.Background(), Key{key}, ev, targets)
	}
	l := &logsFunc{t: t}
	onlyStream(l, "good")
	d := New(l, Config{Log: quiet})
	require.Error(t, deliver(d, 1, 9))
	require.Error(t, deliver(d, 1, 9), "its retry: 5 of 9 are there")
	require.Error(t, deliver(d, 2, 1000))
	d.Close(context.Background())
	chunks, err := d.Save(file, "us")
	require.NoError(t, err)
	require.Equal(t, 2, chunks)

	l = &logsFunc{t: t}
	d = closed(t, New(l, Config{Log: quiet}))
	chunks, err = d.Restore(file, "us")
	require.NoError(t, err)
	require.Equal(t, 2, chunks)
	_, err = os.Stat(file)
	require.ErrorIs(t, err, os.ErrNotExist, "it is read once")
	require.NoError(t, deliver(d, 1, 9))
	require.NoError(t, deliver(d, 2, 1000))
	require.EqualValues(t, 4+500, d.Stats().Events, "the rest alone")
	require.NoError(t, deliver(d, 1, 9))
	require.EqualValues(t, 4+500+9, d.Stats().Events, "and a twin whole")
}

func TestALedgerWithNothingToRememberIsNoFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger")
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o600))
	l := &logsFunc{t: t}
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		return awsclient.Rejected{}, apiError("AccessDeniedException")
	}
	d := New(l, Config{Log: quiet})
	require.Error(t, d.Deliver(context.Background(), Key{1}, numbered(3), here))
	d.Close(context.Background())
	chunks, err := d.Save(file, "us")
	require.NoError(t, err)
	require.Zero(t, chunks)
	_, err = os.Stat(file)
	require.ErrorIs(t, err, os.ErrNotExist)
	chunks, err = d.Restore(file, "us")
	require.NoError(t, err)
	require.Zero(t, chunks)
	_, err = d.Save(filepath.Join(file, "none", "ledger"), "us")
	require.NoError(t, err, "nothing to write, nothing to remove")
}

func savedLedger(t *testing.T) []byte {
	l := newLedger(10, func(*progress) {})
	for k := range 3 {
		p := newProgress(10 * (k + 1))
		p.move(int32(k), accepted)
		l.put(Key{byte(k)}, p)
	}
	data, n := l.encode("us")
	require.Equal(t, 3, n)
	return data
}

func TestADamagedLedgerIsRefusedWhole(t *testing.T) {
	good := savedLedger(t)
	load := func(data []byte) (int, error) {
		file := filepath.Join(t.TempDir(), "ledger")
		require.NoError(t, os.WriteFile(file, data, 0o600))
		d := closed(t, New(&logsFunc{t: t}, Config{Log: quiet}))
		n, err := d.Restore(file, "us")
		require.Equal(t, n, d.Load().LedgerChunks)
		return n, err
	}
	n, err := load(good)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	for cut := range good {
		n, err := load(good[:cut])
		require.Error(t, err, cut)
		require.Zero(t, n)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		n, err := load(bad)
		require.Error(t, err, i)
		require.Zero(t, n)
	}
}

// Whatever stands in the file, reading it ends, and is an error or a ledger.
func FuzzLedgerFile(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte(fmt.Sprint(stateHeader, "xxxxxxxx")))
	p := newProgress(20)
	p.move(3, accepted)
	l := newLedger(10, func(*progress) {})
	l.put(Key{1}, p)
	data, _ := l.encode("us")
	f.Add(data[len(stateHeader)+sha256.Size : len(data)-sha256.Size])
	f.Fuzz(func(t *testing.T, body []byte) {
		owner := sha256.Sum256([]byte("us"))
		data := append([]byte(stateHeader), owner[:]...)
		data = append(data, body...)
		sum := sha256.Sum256(data)
		data = append(data, sum[:]...)
		d := New(&logsFunc{t: t}, Config{Log: quiet, LedgerSize: 8})
		defer d.Close(context.Background())
		n, err := d.ledger.decode(data, "us", d)
		if err == nil && n <= 8 {
			again, chunks := d.ledger.encode("us")
			if chunks > n || len(again) > len(data) {
				t.Fatalf("%d chunks in %d bytes became %d in %d", n, len(data), chunks, len(again))
			}
		}
	})
}

// What one output delivered, another has not: an [OUTPUT] that took the place of another
// does not believe its ledger.
func TestALedgerOfAnotherOutputIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger")
	require.NoError(t, os.WriteFile(file, savedLedger(t), 0o600))
	d := closed(t, New(&logsFunc{t: t}, Config{Log: quiet}))
	n, err := d.Restore(file, "others")
	require.ErrorIs(t, err, errOthers)
	require.Zero(t, n)
	require.Zero(t, d.Load().LedgerChunks)
}

// A record that comes again cut elsewhere is sent whole: a part that was accepted is
// none of its parts now, and what lies between would be lost.
func TestARecordThatIsCutElsewhereIsSentWhole(t *testing.T) {
	l := &logsFunc{t: t}
	calls := 0
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		if calls++; calls == 2 {
			return awsclient.Rejected{}, apiError("AccessDeniedException")
		}
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet}))
	parts := func(first int) *chunk.Events {
		ev := makeEvents(make([]int64, 2), func(i int) string { return bigString([]int{first, 1_300_000 - first}[i]) })
		ev.List[0].Record, ev.List[1].Record = 7, 7
		ev.List[0].Part, ev.List[1].Part = 1, 2
		return ev
	}
	require.Error(t, d.Deliver(context.Background(), Key{1}, parts(600_000), here))
	require.NoError(t, d.Deliver(context.Background(), Key{1}, parts(650_000), here))
	require.EqualValues(t, 3, d.Stats().Events)
	require.EqualValues(t, 1, d.Stats().Evicted)
	calls = 0
	require.Error(t, d.Deliver(context.Background(), Key{2}, parts(600_000), here))
	require.NoError(t, d.Deliver(context.Background(), Key{2}, parts(600_000), here))
	require.EqualValues(t, 5, d.Stats().Events, "cut in the same place: the rest alone")
}
