package folder

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAFolderThatCanBeWrittenToIsMadeAndLeftAsItWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	require.NoError(t, Prove(path))
	require.NoError(t, os.WriteFile(filepath.Join(path, "cloudwatch_tenants.0.ledger"), []byte("kept"), 0o600))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := Prove(path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	entries, err := os.ReadDir(path)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left of the proofs")
	text, err := os.ReadFile(filepath.Join(path, "cloudwatch_tenants.0.ledger"))
	require.NoError(t, err)
	require.Equal(t, "kept", string(text))
}

func TestAFileInPlaceOfTheFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{file, filepath.Join(file, "below")} {
		err := Prove(path)
		var fault *Fault
		require.ErrorAs(t, err, &fault)
		require.False(t, fault.Full())
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, "there is a file where the folder, or one above it, should be: remove the file")
	}
}

func TestAFolderOfAnotherUser(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root passes by permissions; NOT tested here")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	require.ErrorContains(t, Prove(dir), "make a file in it: permission denied (user ")
	require.ErrorContains(t, Prove(dir), "mode 0500): give the folder to that user, or give another folder")
}

// mounted mounts a file system of some kilobytes for the test.
func mounted(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("needs the right to mount (%v); NOT tested here", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

func TestAReadOnlyFileSystem(t *testing.T) {
	dir := mounted(t, "size=64k")
	path := filepath.Join(dir, "state")
	require.NoError(t, Prove(path))
	require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	require.ErrorContains(t, Prove(path), "make a file in it: read-only file system: mount it writable")
	require.ErrorContains(t, Prove(filepath.Join(dir, "other")), "make the folder: read-only file system: mount it writable")
}

func TestAFullFileSystem(t *testing.T) {
	dir := mounted(t, "size=64k")
	require.NoError(t, Prove(dir))
	_, size, err := Room(dir)
	require.NoError(t, err)
	require.EqualValues(t, 64<<10, size)
	require.ErrorIs(t, os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 128<<10), 0o600), syscall.ENOSPC)
	free, _, err := Room(dir)
	require.NoError(t, err)
	require.Zero(t, free)
	err = Prove(dir)
	var fault *Fault
	require.ErrorAs(t, err, &fault)
	require.True(t, fault.Full())
	require.ErrorContains(t, err, "no space left on device: free space (df) or inodes (df -i) on its volume")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "the file that could not be written is removed")
}

func TestEveryCauseHasItsRemedy(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.EROFS:   "no readOnly on its volumeMount",
		syscall.EACCES:  "give the folder to that user",
		syscall.EPERM:   "give the folder to that user",
		syscall.ENOTDIR: "remove the file",
		syscall.ENOSPC:  "free space",
		syscall.EDQUOT:  "raise the quota",
		syscall.EIO:     "give a folder that can be written to",
	} {
		f := &Fault{Path: "/state/ledger", Doing: "make a file in it", Err: &os.PathError{Op: "open", Path: "/state/ledger/.writable-1", Err: errno}}
		require.ErrorContains(t, f, `"/state/ledger" can't be written to: failed to make a file in it: `)
		require.ErrorContains(t, f, want)
		require.NotContains(t, f.Error(), ".writable")
		require.Equal(t, errno == syscall.ENOSPC || errno == syscall.EDQUOT, f.Full())
		require.True(t, errors.Is(f, errno))
	}
}

func TestRoomOfAPathThatIsNotThere(t *testing.T) {
	_, _, err := Room(filepath.Join(t.TempDir(), "none"))
	require.ErrorContains(t, err, "failed to ask for the room of")
}

func TestAFileIsReplacedWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	text := func(s string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			_, _ = io.WriteString(w, s)
			return err
		}
	}
	require.NoError(t, Replace(path, text("first", nil)))
	failed := errors.New("half of it")
	require.Equal(t, failed, Replace(path, text("sec", failed)))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "first", string(got))
	require.NoError(t, Replace(path, text("second", nil)))
	got, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "second", string(got))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing is left beside it")
	require.ErrorIs(t, Replace(filepath.Join(dir, "none", "x"), text("", nil)), os.ErrNotExist)
}
