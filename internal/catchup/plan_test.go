package catchup

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/zeebo/xxh3"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/link"
)

var noon = time.Date(2024, 2, 29, 12, 0, 0, 0, time.Local)

// at is the time in the name of a file that was rotated so many seconds after noon.
func at(seconds int) string {
	return noon.Add(time.Duration(seconds) * time.Second).Format(rotatedLayout)
}

func current(inode uint64) File { return File{Path: "/p/a/0.log", Inode: inode, Size: 1000} }

func rotatedFile(seconds int, inode uint64) File {
	return File{Path: "/p/a/0.log." + at(seconds), Rotated: at(seconds), At: noon.Add(time.Duration(seconds) * time.Second), Inode: inode, Size: 1000}
}

func compressed(seconds int) File {
	f := rotatedFile(seconds, 900+uint64(seconds))
	f.Path, f.Gzip = f.Path+gzipSuffix, true
	return f
}

// row is tail's of a file that was opened so many seconds after noon. One with an offset has a marker, which is the
// inode of the file whose content it was made of.
func row(opened int, inode uint64, offset int64) Row {
	r := Row{Name: "/p/a/0.log", Inode: inode, Offset: offset, Created: noon.Add(time.Duration(opened) * time.Second)}
	if offset > 0 {
		r.Marker, r.MarkerSize = inode, 64
	}
	return r
}

func renamed(r Row, seconds int) Row {
	r.Name += "." + at(seconds)
	return r
}

func TestPlan(t *testing.T) {
	type unread map[string]int64 // the time in a file's name: from where on
	for _, c := range []struct {
		name    string
		files   []File
		rows    []Row
		known   bool
		seen    []string
		content map[string]uint64 // of compressed files: whose marker fits
		want    unread
		from    int64 // of the file that is written
		gaps    int
		began   int // when the first line of the oldest file was written
	}{
		{name: "nothing was rotated", files: []File{current(1)}, rows: []Row{row(0, 1, 300)}, known: true, from: 300},
		{name: "one rotation", files: []File{rotatedFile(5, 1), current(2)}, rows: []Row{row(0, 1, 300)}, known: true, want: unread{at(5): 300}},
		{name: "one rotation of a file that was read to its end", files: []File{rotatedFile(5, 1), current(2)}, rows: []Row{row(0, 1, 1000)}, known: true},
		{name: "two rotations, the older file compressed", files: []File{compressed(5), rotatedFile(6, 2), current(3)}, rows: []Row{row(0, 1, 300)}, known: true,
			content: map[string]uint64{at(5): 1}, want: unread{at(5): 300, at(6): 0}},
		{name: "a rotation that tail noticed before its end", files: []File{compressed(5), rotatedFile(6, 2), current(3)}, rows: []Row{renamed(row(0, 1, 300), 5), row(5, 2, 100)}, known: true,
			want: unread{at(5): 300, at(6): 100}},
		{name: "files from before, which were read and dropped", files: []File{compressed(1), rotatedFile(2, 5), current(6)}, rows: []Row{row(2, 6, 10)}, known: true, from: 10},
		{name: "the inode is the new file's now", files: []File{compressed(5), current(1)}, rows: []Row{row(0, 1, 300)}, known: true, content: map[string]uint64{at(5): 1, "": 77}, want: unread{at(5): 300}},
		{name: "the inode is the new file's now, and nothing was read", files: []File{compressed(5), rotatedFile(6, 2), current(1)}, rows: []Row{row(0, 1, 0)}, known: true, want: unread{at(5): 0, at(6): 0}},
		{name: "a file that was never read, with an inode of before", files: []File{rotatedFile(3, 1), rotatedFile(5, 2), current(3)}, rows: []Row{renamed(row(0, 1, 1000), 3), renamed(row(3, 2, 0), 5)}, known: true, want: unread{at(5): 0}},
		{name: "the last file is gone", files: []File{compressed(7), rotatedFile(8, 3), current(4)}, rows: []Row{row(0, 1, 300)}, known: true, content: map[string]uint64{at(7): 55}, want: unread{at(7): 0, at(8): 0}, gaps: 1},
		{name: "the last file is gone, and nothing of it was read", files: []File{compressed(7), rotatedFile(8, 3), current(4)}, rows: []Row{row(0, 1, 0)}, known: true, began: 6, want: unread{at(7): 0, at(8): 0}, gaps: 1},
		{name: "one that had been rotated and read is gone", files: []File{compressed(7), rotatedFile(8, 3), current(4)}, rows: []Row{renamed(row(0, 1, 1000), 3), row(3, 2, 400)}, known: true,
			content: map[string]uint64{at(7): 2}, want: unread{at(7): 400, at(8): 0}},
		{name: "a younger file that the agent had read, while it lagged with an older one", files: []File{compressed(5), compressed(6), current(3)}, rows: []Row{renamed(row(0, 1, 100), 5), row(6, 3, 10)}, known: true,
			seen: []string{at(6)}, want: unread{at(5): 100}, from: 10},
		{name: "a container that began since", files: []File{rotatedFile(5, 1), current(2)}, known: true, want: unread{at(5): 0}},
		{name: "the first agent of the node", files: []File{rotatedFile(5, 1), current(2)}},
		{name: "no file that is written", files: []File{rotatedFile(5, 1)}, rows: []Row{row(0, 1, 300)}, known: true, want: unread{at(5): 300}},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := map[string]bool{}
			for _, s := range c.seen {
				seen[s] = true
			}
			p, err := plan(c.files, c.rows, c.known, seen, func(f File, r Row) (bool, error) {
				if marker, told := c.content[f.Rotated]; told {
					return r.MarkerSize == 0 || marker == r.Marker, nil
				}
				return r.MarkerSize == 0 || !f.Gzip && f.Inode == r.Marker, nil
			}, func(File) (time.Time, bool) { return noon.Add(time.Duration(c.began) * time.Second), c.began > 0 })
			require.NoError(t, err)
			got := unread{}
			for _, u := range p.Unread {
				got[u.File.Rotated] = u.From
			}
			if c.want == nil {
				c.want = unread{}
			}
			require.Equal(t, c.want, got)
			require.Equal(t, c.from, p.Current.From)
			require.Len(t, p.Gaps, c.gaps)
		})
	}
}

func TestRowsOfTheLauncherAndOfTailAreJoinedByFile(t *testing.T) {
	files := []File{rotatedFile(5, 1), current(2)}
	// The same file, which tail opened after the launcher had seen it.
	require.Equal(t, []Row{row(1, 1, 300)}, merged(files, []Row{row(1, 1, 300)}, nil, []Row{row(0, 1, 0)}))
	// Another with its inode.
	require.Equal(t, []Row{row(0, 1, 0), row(6, 1, 300)}, merged(files, []Row{row(6, 1, 300)}, nil, []Row{row(0, 1, 0)}))
	// tail knows its file to be rotated; the launcher's is younger, and has the inode now.
	require.Equal(t, []Row{renamed(row(0, 1, 300), 5), row(6, 1, 0)}, merged(files, []Row{renamed(row(0, 1, 300), 5)}, nil, []Row{row(6, 1, 0)}))
	// tail went on with the row of another file: its time is that file's.
	require.Equal(t, row(6, 1, 0).Created, merged(files, []Row{row(0, 1, 0)}, []Row{row(6, 1, 0)}, nil)[0].Created)
}

// A kubelet whose zone is not the launcher's.
func TestTheKubeletsZoneIsToldByItsFiles(t *testing.T) {
	for _, east := range []time.Duration{0, 5*time.Hour + 30*time.Minute, -8 * time.Hour} {
		zone := time.FixedZone("", int(east.Seconds()))
		name := noon.In(zone).Format(rotatedLayout)
		earlier := noon.Add(-10 * time.Second)
		logs := map[Log][]File{
			"a": {{Rotated: earlier.In(zone).Format(rotatedLayout), Gzip: true, Size: 9, Modified: noon}, {Rotated: name, Size: 9, Modified: noon.Add(-300 * time.Millisecond)}, {Size: 9}},
			"b": {{Rotated: name, Size: 9, Modified: noon.Add(400 * time.Millisecond)}},
		}
		date(logs)
		require.True(t, logs["a"][0].At.Equal(earlier), east)
		require.True(t, logs["b"][0].At.Equal(noon), east)
		require.True(t, logs["a"][2].At.IsZero())
	}
}

// layout makes a pod's folder and returns the log.
func layout(t *testing.T, dir string, files map[string]string) Log {
	t.Helper()
	log := Log(filepath.Join(dir, "pods", podDir, "app", "0.log"))
	require.NoError(t, os.MkdirAll(filepath.Dir(string(log)), 0o755))
	for name, content := range files {
		path := filepath.Join(filepath.Dir(string(log)), name)
		data := []byte(content)
		if strings.HasSuffix(name, gzipSuffix) {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, err := z.Write(data)
			require.NoError(t, err)
			require.NoError(t, z.Close())
			data = b.Bytes()
		}
		require.NoError(t, os.WriteFile(path, data, 0o600))
	}
	return log
}

func prepare(t *testing.T, dir string) (*Follower, []link.Report, string) {
	t.Helper()
	var reports []link.Report
	var said bytes.Buffer
	f, err := Prepare(context.Background(), Config{Logs: filepath.Join(dir, "pods"), DB: filepath.Join(dir, "tail.db"), Dir: filepath.Join(dir, "catch-up"),
		Log: slog.New(slog.NewTextHandler(&said, nil)), Report: func(r link.Report) { reports = append(reports, r) }})
	require.NoError(t, err)
	return f, reports, said.String()
}

func TestACompressedFileIsLaidDownFromWhereTailStopped(t *testing.T) {
	dir := t.TempDir()
	head, rest := strings.Repeat("read\n", 40), "unread 1\nunread 2"
	log := layout(t, dir, map[string]string{"0.log": "", "0.log." + at(5) + ".gz": head + rest, "0.log." + at(6): "younger\n"})
	r := Row{Name: string(log), Inode: 1, Offset: int64(len(head)), Created: noon, Marker: xxh3.HashString(head[len(head)-64:]), MarkerSize: 64}
	saveRows(t, filepath.Join(dir, "tail.db"), []Row{r})
	_, reports, _ := prepare(t, dir)
	got, err := os.ReadFile(filepath.Join(dir, "catch-up", podDir, "app", "0."+at(5)+".log"))
	require.NoError(t, err)
	require.Equal(t, rest+"\n", string(got), "tail waits for the end of a line")
	got, err = os.ReadFile(filepath.Join(dir, "catch-up", podDir, "app", "0."+at(6)+".log"))
	require.NoError(t, err)
	require.Equal(t, "younger\n", string(got))
	require.Equal(t, []link.Report{
		{Kind: link.CaughtUp, Namespace: "tenant-acme", Pod: "web-0", Container: "app", Bytes: int64(len(rest))},
		{Kind: link.CaughtUp, Namespace: "tenant-acme", Pod: "web-0", Container: "app", Bytes: 8},
	}, reports)
	// A start that comes to nothing, and another: nothing is laid down twice.
	_, reports, _ = prepare(t, dir)
	require.Empty(t, reports)
}

func TestADamagedCompressedFileIsLaidDownAsFarAsItGoes(t *testing.T) {
	dir := t.TempDir()
	log := layout(t, dir, map[string]string{"0.log": "", "0.log." + at(5) + ".gz": strings.Repeat("a line that does not compress well: 8f14e45f ceea167a 5a36dedd\n", 5000)})
	gz := filepath.Join(filepath.Dir(string(log)), "0.log."+at(5)+".gz")
	data, err := os.ReadFile(gz)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(gz, data[:len(data)/2], 0o600))
	saveRows(t, filepath.Join(dir, "tail.db"), []Row{{Name: string(log), Inode: 1, Created: noon}})
	_, reports, _ := prepare(t, dir)
	require.Len(t, reports, 1)
	require.Positive(t, reports[0].Bytes)
}

func TestAFileThatIsGoneIsTold(t *testing.T) {
	dir := t.TempDir()
	log := layout(t, dir, map[string]string{"0.log": "", "0.log." + at(50): "younger\n"})
	saveRows(t, filepath.Join(dir, "tail.db"), []Row{{Name: string(log), Inode: 1, Offset: 500, Marker: 5, MarkerSize: 64, Created: noon}})
	_, reports, said := prepare(t, dir)
	require.Len(t, reports, 2)
	require.Equal(t, link.Report{Kind: link.Lost, Namespace: "tenant-acme", Pod: "web-0", Container: "app"}, reports[0])
	require.Contains(t, said, "lines of a container are lost")
	require.NotContains(t, said, "younger")
}

func TestWhatCannotBeReadKeepsNothingFromStarting(t *testing.T) {
	dir := t.TempDir()
	layout(t, dir, map[string]string{"0.log": "", "0.log." + at(5): "x\n"})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tail.db"), []byte("no database, but more than a header's length of text: "+strings.Repeat("x", 200)), 0o600))
	_, err := Prepare(context.Background(), Config{Logs: filepath.Join(dir, "pods"), DB: filepath.Join(dir, "tail.db"), Dir: filepath.Join(dir, "catch-up"), Log: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, "failed to read tail's database "+filepath.Join(dir, "tail.db"))
	require.NoError(t, os.Remove(filepath.Join(dir, "tail.db")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "catch-up", snapshotName), []byte("{"), 0o600))
	_, reports, said := prepare(t, dir)
	require.Empty(t, reports)
	require.Contains(t, said, "is damaged, and is left out")
}

// A database of a Fluent Bit before 5.1 has no markers.
func TestADatabaseWithoutMarkers(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tail.db")
	saveRows(t, path, []Row{{Name: "/x/0.log", Inode: 1 << 63, Offset: 7, Created: noon}})
	require.NoError(t, alter(path, "ALTER TABLE in_tail_files DROP COLUMN offset_marker", "ALTER TABLE in_tail_files DROP COLUMN offset_marker_size"))
	rows, err := readRows(context.Background(), path)
	require.NoError(t, err)
	require.Equal(t, []Row{{Name: "/x/0.log", Inode: 1 << 63, Offset: 7, Created: noon.Truncate(time.Second)}}, rows)
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{"0.log", "12.log.20261127-120000", "0.log.20261127-120000.gz", "0.log.20261127-120000.tmp", "x.log", "", "0.log/", "c/0.log", "../0.log"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		log, rotated, gz, ok := split("/var/log/pods/a/b/" + name)
		if !ok {
			return
		}
		path := log.file(rotated)
		if gz {
			path += gzipSuffix
		}
		require.Equal(t, filepath.Join("/var/log/pods/a/b", name), path, fmt.Sprintf("%q", name))
		if !strings.Contains(name, "/") { // a file of that folder
			require.True(t, strings.HasPrefix(laidPath("/state", log, rotated), "/state/a/b/"))
		}
	})
}

// What a power loss leaves: an empty file, zeros, a stream that is broken in its middle.
func TestADamagedFileIsLostAloneAndToldOnce(t *testing.T) {
	dir := t.TempDir()
	log := layout(t, dir, map[string]string{"0.log": "", "0.log." + at(7): "good\n", "0.log." + at(6) + ".gz": strings.Repeat("8f14e45f ceea167a 5a36dedd 4bea2543\n", 3000)})
	folder := filepath.Dir(string(log))
	broken := filepath.Join(folder, "0.log."+at(6)+".gz")
	data, err := os.ReadFile(broken)
	require.NoError(t, err)
	for i := len(data) / 2; i < len(data)/2+200 && i < len(data); i++ {
		data[i] = 0xff
	}
	require.NoError(t, os.WriteFile(broken, data, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "0.log."+at(4)+".gz"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "0.log."+at(5)+".gz"), make([]byte, 500), 0o600))
	saveRows(t, filepath.Join(dir, "tail.db"), []Row{{Name: string(log), Inode: 1, Offset: 10, Marker: 1, MarkerSize: 10, Created: noon}})
	f, reports, said := prepare(t, dir)
	kinds := map[link.Kind]int{}
	for _, r := range reports {
		kinds[r.Kind]++
	}
	require.Positive(t, kinds[link.CaughtUp], said)
	require.GreaterOrEqual(t, kinds[link.Lost], 2, said)
	require.Empty(t, f.pending, "what is damaged does not mend")
	_, err = os.Stat(filepath.Join(dir, "catch-up", podDir, "app", "0."+at(7)+".log"))
	require.NoError(t, err)
}

func TestWhatAKilledLauncherLeftIsRemoved(t *testing.T) {
	dir := t.TempDir()
	layout(t, dir, map[string]string{"0.log": ""})
	left := []string{filepath.Join(dir, "catch-up", snapshotName+".1"), filepath.Join(dir, "catch-up", podDir, "app", "0."+at(5)+".log.1")}
	for _, path := range left {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	prepare(t, dir)
	for _, path := range left {
		_, err := os.Stat(path)
		require.ErrorIs(t, err, os.ErrNotExist)
	}
}
