package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// image is what an OCI archive holds, its layers laid over each other.
type image struct {
	Digest string // of the manifest
	Config struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Config       struct {
			User       string
			Entrypoint []string
			Cmd        []string
			Labels     map[string]string
		} `json:"config"`
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	Files map[string]file // by path without a leading slash; no directories
}

// file is one file of an image.
type file struct {
	Mode     int64
	UID, GID int
	Modified time.Time
	Body     []byte // of regular files
}

// descriptor points to a blob of the archive.
type descriptor struct {
	Digest string `json:"digest"`
}

// readImage reads an archive that `buildah push oci-archive:` or `docker save` wrote.
func readImage(t *testing.T, archive string) image {
	t.Helper()
	blobs := map[string][]byte{}
	f, err := os.Open(archive)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	eachEntry(t, f, func(h *tar.Header, r io.Reader) {
		if h.Typeflag == tar.TypeReg {
			body, err := io.ReadAll(r)
			require.NoError(t, err)
			blobs[path.Clean(h.Name)] = body
		}
	})
	blob := func(d descriptor) []byte {
		algorithm, hex, _ := strings.Cut(d.Digest, ":")
		body, found := blobs[path.Join("blobs", algorithm, hex)]
		require.True(t, found, "%s has no blob %s", archive, d.Digest)
		return body
	}
	var index struct{ Manifests []descriptor }
	require.NoError(t, json.Unmarshal(blobs["index.json"], &index))
	require.Len(t, index.Manifests, 1)
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	require.NoError(t, json.Unmarshal(blob(index.Manifests[0]), &manifest))
	img := image{Digest: index.Manifests[0].Digest, Files: map[string]file{}}
	require.NoError(t, json.Unmarshal(blob(manifest.Config), &img.Config))
	for _, layer := range manifest.Layers {
		img.add(t, blob(layer))
	}
	return img
}

// add lays a layer over what is there.
func (i *image) add(t *testing.T, layer []byte) {
	t.Helper()
	var r io.Reader = bytes.NewReader(layer)
	if bytes.HasPrefix(layer, []byte{0x1f, 0x8b}) {
		unzipped, err := gzip.NewReader(r)
		require.NoError(t, err)
		r = unzipped
	}
	eachEntry(t, r, func(h *tar.Header, r io.Reader) {
		name := path.Clean(strings.TrimPrefix(h.Name, "/"))
		if removed, ok := strings.CutPrefix(path.Base(name), ".wh."); ok {
			t.Errorf("a layer removes %s", path.Join(path.Dir(name), removed))
			return
		}
		if h.Typeflag == tar.TypeDir {
			return
		}
		body, err := io.ReadAll(r)
		require.NoError(t, err)
		i.Files[name] = file{Mode: h.Mode, UID: h.Uid, GID: h.Gid, Modified: h.ModTime, Body: body}
	})
}

func eachEntry(t *testing.T, r io.Reader, do func(*tar.Header, io.Reader)) {
	t.Helper()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return
		}
		require.NoError(t, err)
		do(h, archive)
	}
}
