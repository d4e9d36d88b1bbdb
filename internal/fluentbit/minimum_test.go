package fluentbit

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestCheckRefusesWhatIsOlderThanTheFixesAndNothingNewer(t *testing.T) {
	for version, refused := range map[string]bool{
		"1.9.10": true, "3.2.10": true, "4.0.0": true, "4.0.11": true, "4.1.0": true,
		"4.0.12": false, "4.0.14": false, "4.1.1": false, "4.1.2": false, "4.2.0": false, "5.0.0": false, "5.1.1": false, "6.0.0": false, "10.0.0": false,
	} {
		t.Run(version, func(t *testing.T) {
			v, ok := Parse(version)
			require.True(t, ok)
			err := Check(v)
			if !refused {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "Fluent Bit "+version+" is refused")
			require.NotContains(t, err.Error(), "\n", "one line")
			require.ErrorContains(t, err, "4.1.1 or newer")
			for _, cve := range CVEs {
				require.ErrorContains(t, err, cve)
			}
		})
	}
}

func TestEveryVersionFrom4Dot2OnIsAccepted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := Version{rapid.IntRange(4, 999).Draw(t, "major"), rapid.IntRange(0, 999).Draw(t, "minor"), rapid.IntRange(0, 999).Draw(t, "patch")}
		if v.Major == 4 && v.Minor < 2 {
			v.Minor += 2
		}
		require.NoError(t, Check(v))
		back, ok := Parse(v.String())
		require.True(t, ok)
		require.Equal(t, v, back)
	})
}

func TestParseTakesVersionsAsTheyAreWritten(t *testing.T) {
	for s, want := range map[string]Version{
		"5.1.1": {5, 1, 1}, "v4.2.3.1": {4, 2, 3}, " 5.0.0-rc1\n": {5, 0, 0}, "4.0.12+deb13u1": {4, 0, 12},
	} {
		got, ok := Parse(s)
		require.True(t, ok, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "latest", "5.1", "5.1.x", "-1.2.3", "9999999999999999999.0.0"} {
		_, ok := Parse(s)
		require.False(t, ok, s)
	}
}

func TestFindAsksTheProgramFirstAndTheEnvironmentElse(t *testing.T) {
	cases := map[string]struct {
		executable, output, env string
		err                     error
		want                    string // "" for unknown
		runs                    bool
	}{
		"the program answers":                            {executable: "/fluent-bit/bin/fluent-bit", output: "Fluent Bit v5.1.1\nGit commit: abc\n", want: "5.1.1", runs: true},
		"the program wins over the image's claim":        {executable: "/fluent-bit/bin/fluent-bit", output: "Fluent Bit v4.1.0\n", env: "5.1.1", want: "4.1.0", runs: true},
		"a nightly build":                                {executable: "/x/fluent-bit", output: "Fluent Bit v5.2.0 | NIGHTLY_BUILD=1 - DO NOT USE IN PRODUCTION!\n", want: "5.2.0", runs: true},
		"a program that was replaced":                    {executable: "/x/fluent-bit (deleted)", output: "Fluent Bit v5.1.1\n", want: "5.1.1", runs: true},
		"a program that fails":                           {executable: "/x/fluent-bit", err: errors.New("exec: permission denied"), env: "5.1.1", want: "5.1.1", runs: true},
		"a program that says something else":             {executable: "/x/fluent-bit", output: "hello\n", runs: true},
		"another program is not run":                     {executable: "/usr/bin/collector", output: "Fluent Bit v5.1.1\n"},
		"another program is what the environment claims": {executable: "/usr/bin/collector", env: "v5.1.1", want: "5.1.1"},
		"nothing is known":                               {env: "latest"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			ran := false
			v, ok := Find(context.Background(), Process{
				Executable: c.executable, Self: "/proc/self/exe",
				Getenv: func(key string) string { require.Equal(t, Environment, key); return c.env },
				Run: func(_ context.Context, program string, args ...string) ([]byte, error) {
					ran = true
					require.Equal(t, "/proc/self/exe", program)
					require.Equal(t, []string{"--version"}, args)
					return []byte(c.output), c.err
				},
			})
			require.Equal(t, c.runs, ran)
			require.Equal(t, c.want != "", ok)
			if ok {
				require.Equal(t, c.want, v.String())
			}
		})
	}
}
