package controller

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAConfigurationIsFilledOrRefused(t *testing.T) {
	right := Config{Namespace: "logs", Release: "r"}
	c := right
	require.NoError(t, c.Check())
	require.Equal(t, []any{10 * time.Minute, 30 * time.Minute}, []any{c.Resync, c.PassTimeout})
	require.Equal(t, []string{"r-status", "r-registry", "(none)"}, []string{c.statusName(), c.registryName(), c.exceptionsFrom()})
	for want, change := range map[string]func(c *Config){
		"is no namespace's name":    func(c *Config) { c.Namespace = "Logs" },
		"up to 53 characters":       func(c *Config) { c.Release = strings.Repeat("r", 54) },
		"one of them is enough":     func(c *Config) { c.ExceptionsFile, c.ExceptionsConfigMap = "a", "b" },
		"at least a minute":         func(c *Config) { c.Resync = time.Second },
		"the time limit of a pass,": func(c *Config) { c.PassTimeout = time.Millisecond },
	} {
		c := right
		change(&c)
		require.ErrorContains(t, c.Check(), want)
	}
}

func TestATenantsFileIsReadFromWhereItIs(t *testing.T) {
	w := newWorld()
	w.set("exceptions", map[string]string{registryKey: "from the ConfigMap"})
	path := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(path, []byte("from the file"), 0o600))
	for want, c := range map[string]Config{
		"": {}, "from the ConfigMap": {ExceptionsConfigMap: "exceptions"}, "from the file": {ExceptionsFile: path},
	} {
		text, err := c.exceptionsText(t.Context(), w)
		require.NoError(t, err)
		require.Equal(t, want, text)
	}
	w.set("another", map[string]string{"tenants.yml": "by another key"})
	for _, name := range []string{"missing", "another"} {
		_, err := (&Config{Namespace: "logs", ExceptionsConfigMap: name}).exceptionsText(t.Context(), w)
		require.ErrorContains(t, err, "there is no ConfigMap logs/"+name+" with the key tenants.yaml")
	}
	_, err := (&Config{ExceptionsFile: path + "x"}).exceptionsText(t.Context(), w)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.Truncate(path, maxConfigMap+1))
	_, err = (&Config{ExceptionsFile: path}).exceptionsText(t.Context(), w)
	require.ErrorContains(t, err, "more than a ConfigMap holds")
}
