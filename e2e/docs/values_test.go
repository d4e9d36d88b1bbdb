package docs

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const chart = "charts/eks-tenant-logs"

// schema is what of a JSON schema says which keys there may be.
type schema struct {
	Ref                  string             `json:"$ref"`
	Properties           map[string]*schema `json:"properties"`
	AdditionalProperties json.RawMessage    `json:"additionalProperties"`
	AnyOf                []*schema          `json:"anyOf"`
	OneOf                []*schema          `json:"oneOf"`
	AllOf                []*schema          `json:"allOf"`
	Definitions          map[string]*schema `json:"definitions"`
	Defs                 map[string]*schema `json:"$defs"`
}

// knows says whether a value of that path, such as aws.region, is one of the chart's.
func (s *schema) knows(root *schema, path []string) bool {
	if name, ok := strings.CutPrefix(s.Ref, "#/definitions/"); ok {
		return root.Definitions[name] != nil && root.Definitions[name].knows(root, path)
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/$defs/"); ok {
		return root.Defs[name] != nil && root.Defs[name].knows(root, path)
	}
	if len(path) == 0 {
		return true
	}
	if p, ok := s.Properties[path[0]]; ok {
		return p.knows(root, path[1:])
	}
	for _, list := range [][]*schema{s.AnyOf, s.OneOf, s.AllOf} {
		for _, one := range list {
			if one.knows(root, path) {
				return true
			}
		}
	}
	// Keys that the user names, such as annotations' and tenants'.
	var more schema
	switch string(s.AdditionalProperties) {
	case "":
		return len(s.Properties)+len(s.AnyOf)+len(s.OneOf)+len(s.AllOf) == 0
	case "true":
		return true
	case "false":
		return false
	}
	return json.Unmarshal(s.AdditionalProperties, &more) == nil && more.knows(root, path[1:])
}

// keys are the paths of a YAML document's values; lists are values.
func keys(n *yaml.Node, path []string) (all [][]string) {
	switch n.Kind {
	case yaml.DocumentNode:
		return keys(n.Content[0], path)
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			all = append(all, keys(n.Content[i+1], append(path[:len(path):len(path)], n.Content[i].Value))...)
		}
		return all
	}
	return [][]string{path}
}

// setPath is the path of what --set is given: dots part keys, a backslash keeps one, and an index
// belongs to a list.
func setPath(name string) (path []string) {
	name, _, _ = strings.Cut(name, "[")
	for _, key := range strings.Split(strings.ReplaceAll(name, `\.`, "\x00"), ".") {
		path = append(path, strings.ReplaceAll(key, "\x00", "."))
	}
	return path
}

// valuesOf are the paths that a page gives to the chart: by --set in commands, by blocks that begin
// with the comment "# values.yaml".
func valuesOf(p Page) (where []int, paths [][]string, err error) {
	for _, c := range p.Commands() {
		for i, w := range c.Words {
			if c.Words[0] != "helm" || !strings.HasPrefix(w, "--set") || i+1 == len(c.Words) {
				continue
			}
			for _, pair := range strings.Split(c.Words[i+1], ",") {
				name, _, ok := strings.Cut(pair, "=")
				if ok {
					where, paths = append(where, c.Line), append(paths, setPath(name))
				}
			}
		}
	}
	for _, b := range p.Blocks {
		if b.Language != "yaml" || len(b.Lines) == 0 || strings.TrimSpace(b.Lines[0].Text) != "# values.yaml" {
			continue
		}
		var text strings.Builder
		for _, l := range b.Lines {
			text.WriteString(l.Text + "\n")
		}
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(text.String()), &doc); err != nil {
			return nil, nil, errors.Join(errors.New(p.Where(b.Lines[0].Number)), err)
		}
		for _, path := range keys(&doc, nil) {
			where, paths = append(where, b.Lines[0].Number), append(paths, path)
		}
	}
	return where, paths, nil
}

func TestEveryValueOfTheChartThatIsNamedIsOne(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, chart, "values.schema.json"))
	require.NoError(t, err)
	var s schema
	require.NoError(t, json.Unmarshal(text, &s))
	require.True(t, s.knows(&s, []string{"clusterName"}))
	require.False(t, s.knows(&s, []string{"notOneOfThem"}), "the schema takes any key")
	found := 0
	for _, p := range pages(t) {
		where, paths, err := valuesOf(p)
		require.NoError(t, err)
		for i, path := range paths {
			found++
			require.True(t, s.knows(&s, path), "%s: the chart has no value %s", p.Where(where[i]), strings.Join(path, "."))
		}
	}
	require.Greater(t, found, 10)
}

func TestValuesThatAreNoneAreFound(t *testing.T) {
	var s schema
	require.NoError(t, json.Unmarshal([]byte(`{"additionalProperties":false,"properties":{"aws":{"additionalProperties":false,"properties":{"region":{"type":"string"}}},
		"pods":{"$ref":"#/$defs/pods"},"tags":{"additionalProperties":{"type":"string"}},"any":{}},"$defs":{"pods":{"additionalProperties":false,"properties":{"image":{}}}}}`), &s))
	for path, known := range map[string]bool{
		"aws": true, "aws.region": true, "aws.regoin": false, "cluster": false, "pods.image": true, "pods.images": false, `tags.a\.b/c`: true, "any.x.y": true, "pods.image[0]": true,
	} {
		require.Equal(t, known, s.knows(&s, setPath(path)), path)
	}
	p := Read("x.md", "```sh\nhelm install x y --set aws.region=z,b=c \\\n  --set-string d=e\necho --set f=g\n```\n```yaml\n# values.yaml\na:\n  b: [1]\n  c: {d: e}\n```\n```yaml\nz: 1\n```")
	_, paths, err := valuesOf(p)
	require.NoError(t, err)
	require.Equal(t, [][]string{{"aws", "region"}, {"b"}, {"d"}, {"a", "b"}, {"a", "c", "d"}}, paths)
}
