package catchup

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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

func current(inode uint64) File {
	return File{Path: "/p/a/0.log", ID: FileID{Inode: inode}, Size: 1000}
}

func rotatedFile(seconds int, inode uint64) File {
	return File{Path: "/p/a/0.log." + at(seconds), Rotated: at(seconds), At: noon.Add(time.Duration(seconds) * time.Second), ID: FileID{Inode: inode}, Size: 1000}
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
	born := func(f File, tenths int) File {
		f.ID.Born = noon.Add(time.Duration(tenths) * 100 * time.Millisecond).UnixNano()
		return f
	}
	head := func(n uint64) Head { return Head{n, 40} }
	for _, c := range []struct {
		name    string
		before  before
		files   []File
		rows    []Row
		journal []*version
		content map[string]uint64 // of compressed files: whose marker fits
		want    unread
		from    int64 // of the file that is written
		gaps    int
		stale   int
		began   int // when the first line of the oldest file was written
	}{
		{name: "nothing was rotated", before: tails, files: []File{current(1)}, rows: []Row{row(0, 1, 300)}, from: 300},
		{name: "one rotation", before: tails, files: []File{rotatedFile(5, 1), current(2)}, rows: []Row{row(0, 1, 300)}, want: unread{at(5): 300}},
		{name: "one rotation of a file that was read to its end", before: tails, files: []File{rotatedFile(5, 1), current(2)}, rows: []Row{row(0, 1, 1000)}},
		{name: "two rotations, the older file compressed", before: tails, files: []File{compressed(5), rotatedFile(6, 2), current(3)}, rows: []Row{row(0, 1, 300)},
			content: map[string]uint64{at(5): 1}, want: unread{at(5): 300, at(6): 0}},
		{name: "a rotation that tail noticed before its end", before: tails, files: []File{compressed(5), rotatedFile(6, 2), current(3)}, rows: []Row{renamed(row(0, 1, 300), 5), row(5, 2, 100)},
			want: unread{at(5): 300, at(6): 100}},
		{name: "files from before, which were read and dropped", before: tails, files: []File{compressed(1), rotatedFile(2, 5), current(6)}, rows: []Row{row(2, 6, 10)}, from: 10},
		{name: "the inode is the new file's now", stale: 1, before: tails, files: []File{compressed(5), current(1)}, rows: []Row{row(0, 1, 300)}, content: map[string]uint64{at(5): 1, "": 77}, want: unread{at(5): 300}},
		{name: "the inode is the new file's now, and nothing was read", stale: 1, before: tails, files: []File{compressed(5), rotatedFile(6, 2), current(1)}, rows: []Row{row(0, 1, 0)}, want: unread{at(5): 0, at(6): 0}},
		{name: "a file that was never read, with an inode of before", before: tails, files: []File{rotatedFile(3, 1), rotatedFile(5, 2), current(3)}, rows: []Row{renamed(row(0, 1, 1000), 3), renamed(row(3, 2, 0), 5)}, want: unread{at(5): 0}},
		{name: "the last file is gone", before: tails, files: []File{compressed(7), rotatedFile(8, 3), current(4)}, rows: []Row{row(0, 1, 300)}, content: map[string]uint64{at(7): 55}, want: unread{at(7): 0, at(8): 0}, gaps: 1},
		{name: "the last file is gone, and nothing of it was read", before: tails, files: []File{compressed(7), rotatedFile(8, 3), current(4)}, rows: []Row{row(0, 1, 0)}, began: 6, want: unread{at(7): 0, at(8): 0}, gaps: 1},
		{name: "one that had been rotated and read is gone", before: tails, files: []File{compressed(7), rotatedFile(8, 3), current(4)}, rows: []Row{renamed(row(0, 1, 1000), 3), row(3, 2, 400)},
			content: map[string]uint64{at(7): 2}, want: unread{at(7): 400, at(8): 0}},
		{name: "a younger file that the agent had read, while it lagged with an older one", before: tails, files: []File{compressed(5), compressed(6), current(3)}, rows: []Row{renamed(row(0, 1, 100), 5), row(6, 3, 10)},
			journal: []*version{{rotated: at(6), state: read}}, want: unread{at(5): 100}, from: 10},
		{name: "a container that began since", before: tails, files: []File{rotatedFile(5, 1), current(2)}, want: unread{at(5): 0}},
		{name: "the first agent of the node", before: nothing, files: []File{rotatedFile(5, 1), current(2)}},
		{name: "no file that is written", before: tails, files: []File{rotatedFile(5, 1)}, rows: []Row{row(0, 1, 300)}, want: unread{at(5): 300}},

		// What the seconds of names and rows do not tell.
		{name: "opened and rotated in the same second", before: tails, files: []File{born(rotatedFile(5, 7), 1), born(rotatedFile(6, 1), 51), born(current(2), 68)},
			rows: []Row{row(6, 1, 0)}, want: unread{at(6): 0}},
		{name: "an inode that was used again", before: tails, files: []File{born(rotatedFile(6, 7), 51), born(rotatedFile(8, 1), 68), born(current(2), 80)},
			rows: []Row{row(5, 1, 0)}, want: unread{at(6): 0, at(8): 0}, gaps: 1},
		{name: "the journal knows the file", before: journaled, files: []File{born(rotatedFile(6, 1), 51), born(current(2), 68)}, journal: []*version{{id: FileID{1, noon.Add(5100 * time.Millisecond).UnixNano()}, state: read}},
			rows: []Row{row(0, 1, 0)}, want: unread{at(6): 0}},
		{name: "the journal knows what was read", before: journaled, files: []File{compressed(5), born(rotatedFile(6, 2), 51), born(current(3), 60)}, journal: []*version{
			{rotated: at(5), state: read}, {id: FileID{2, noon.Add(5100 * time.Millisecond).UnixNano()}, state: read}}, rows: []Row{row(5, 2, 70)}, want: unread{at(6): 70}},
		{name: "open at the agent's end, which removed the row", before: journaled, files: []File{compressed(5), rotatedFile(6, 2), current(3)}, journal: []*version{
			{rotated: at(5), state: read, open: true, position: 70}, {id: FileID{Inode: 2}, rotated: at(6), state: read, open: true, position: 1000}, {id: FileID{Inode: 3}, state: read, open: true, position: 5}},
			rows: []Row{row(6, 3, 5)}, want: unread{at(5): 70}, from: 5},
		{name: "open at the agent's end, and removed since", before: journaled, files: []File{current(3)}, journal: []*version{
			{rotated: at(5), state: read, open: true, position: 70, size: 90}, {rotated: at(6), state: read, open: true, position: 90, size: 90}, {id: FileID{Inode: 3}, state: read, open: true, position: 5}},
			rows: []Row{row(6, 3, 5)}, from: 5, gaps: 1},
		{name: "a pod that is gone, and was read", before: journaled, journal: []*version{{id: FileID{Inode: 3}, state: read, open: true, position: 90, size: 90}}, rows: []Row{row(6, 3, 90)}},
		{name: "a pod that is gone, and was not read", before: journaled, journal: []*version{{id: FileID{Inode: 3}, state: read, open: true, position: 80, size: 90}}, rows: []Row{row(6, 3, 70)}, gaps: 1},
		{name: "an inode that was used again, and lines that all end alike", before: journaled, files: []File{compressed(5), born(rotatedFile(6, 2), 51), born(current(1), 68)},
			journal: []*version{{id: FileID{1, noon.UnixNano()}, state: read, head: head(1)}}, rows: []Row{row(0, 1, 300)}, content: map[string]uint64{at(5): 1, "": 1}, want: unread{at(5): 300, at(6): 0}, stale: 1},
		{name: "made since the journal was written", before: journaled, files: []File{compressed(5), rotatedFile(6, 2), current(3)}, journal: []*version{{rotated: at(5), state: done}}, want: unread{at(6): 0}},
		{name: "was to be laid down", before: journaled, files: []File{compressed(5), rotatedFile(6, 2), current(3)}, journal: []*version{{rotated: at(5), state: due, from: 70}, {rotated: at(6), state: done}}, want: unread{at(5): 70}},
		{name: "nothing was read of a file that is compressed now", before: journaled, files: []File{compressed(5), rotatedFile(6, 2), current(3)}, journal: []*version{{id: FileID{Inode: 1}, state: read, head: head(1)}},
			rows: []Row{row(0, 1, 0)}, content: map[string]uint64{at(5): 1}, want: unread{at(5): 0, at(6): 0}},
		{name: "a file of the journal is gone", before: journaled, files: []File{compressed(7), rotatedFile(8, 2), current(3)}, journal: []*version{{id: FileID{Inode: 1}, state: read, head: head(1), size: 500}},
			rows: []Row{row(0, 1, 100)}, content: map[string]uint64{at(7): 5}, want: unread{at(7): 0, at(8): 0}, gaps: 1},
		{name: "a file of the journal is gone, after it was read", before: journaled, files: []File{compressed(7), rotatedFile(8, 2), current(3)},
			journal: []*version{{rotated: at(3), state: read, size: 500}, {rotated: at(7), state: done}, {id: FileID{Inode: 2}, rotated: at(8), state: done}, {id: FileID{Inode: 3}, state: read}}, rows: []Row{row(8, 3, 9)}, from: 9},
		{name: "a file that waited is gone", before: journaled, files: []File{rotatedFile(8, 2), current(3)}, journal: []*version{{rotated: at(3), state: due, from: 10, size: 500}, {id: FileID{Inode: 2}, rotated: at(8), state: done}}, gaps: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			known := past{before: c.before, rows: c.rows}
			for _, f := range c.files {
				var is *version
				for _, v := range c.journal {
					marker, told := c.content[f.Rotated]
					if f.Gzip && (v.rotated == f.Rotated || told && v.head.Hash == marker) || !f.Gzip && v.id.is(f.ID) || v.rotated != "" && v.rotated == f.Rotated {
						is = v
					}
				}
				known.of = append(known.of, is)
			}
			for _, v := range c.journal {
				if !slices.Contains(known.of, v) {
					known.gone = append(known.gone, v)
				}
			}
			p, err := plan(c.files, known, func(f File, r Row) (bool, error) {
				if marker, told := c.content[f.Rotated]; told {
					return r.MarkerSize == 0 || marker == r.Marker, nil
				}
				return r.MarkerSize == 0 || !f.Gzip && f.ID.Inode == r.Marker, nil
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
			require.Len(t, p.Stale, c.stale)
		})
	}
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
	f.copy(context.Background())
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
	require.NoError(t, os.WriteFile(filepath.Join(dir, "catch-up", journalName), []byte("{"), 0o600))
	_, reports, said := prepare(t, dir)
	require.Empty(t, reports)
	require.Contains(t, said, "is damaged, and is left out")
}

func TestRowsOfFilesThatAreGoneAreRemoved(t *testing.T) {
	dir := t.TempDir()
	log := layout(t, dir, map[string]string{"0.log": strings.Repeat("alike\n", 100)})
	id, _, _, _, err := stat(string(log))
	require.NoError(t, err)
	rows := []Row{{Name: string(log), Inode: id.Inode, Offset: 60, Created: noon, Marker: 1, MarkerSize: 32}, {Name: "/other/0.log", Inode: id.Inode, Created: noon}}
	saveRows(t, filepath.Join(dir, "tail.db"), rows)
	prepare(t, dir)
	left, err := readRows(t.Context(), filepath.Join(dir, "tail.db"))
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.Equal(t, "/other/0.log", left[0].Name)
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
	for _, tr := range f.trackers {
		require.Empty(t, dueOf(tr), "what is damaged does not mend")
	}
	_, err = os.Stat(filepath.Join(dir, "catch-up", podDir, "app", "0."+at(7)+".log"))
	require.NoError(t, err)
}

func TestWhatAKilledLauncherLeftIsRemoved(t *testing.T) {
	dir := t.TempDir()
	layout(t, dir, map[string]string{"0.log": ""})
	left := []string{filepath.Join(dir, "catch-up", journalName+".1"), filepath.Join(dir, "catch-up", podDir, "app", "0."+at(5)+".log.1")}
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
