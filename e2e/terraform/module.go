package terraform

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// Module is a folder of Terraform files with values for its variables.
type Module struct {
	variables map[string]cty.Value
	locals    map[string]hcl.Expression
	blocks    map[string]*hclsyntax.Block // by "data.external.policy", "aws_iam_role.cluster"
	outputs   map[string]hcl.Expression
	// data answers for a data source, by its type and what its attributes say.
	data func(kind string, attributes map[string]cty.Value) (map[string]cty.Value, error)
	// computed are the attributes that a provider adds to a resource.
	computed func(kind string, attributes map[string]cty.Value) map[string]cty.Value
	done     map[string]cty.Value
}

// Load reads the files of a folder. values replace the variables' defaults; a variable with
// neither, and a value that fails its validation, is an error.
func Load(dir string, values map[string]cty.Value) (*Module, error) {
	m := &Module{
		variables: map[string]cty.Value{}, locals: map[string]hcl.Expression{}, blocks: map[string]*hclsyntax.Block{}, outputs: map[string]hcl.Expression{},
		done: map[string]cty.Value{},
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.tf"))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, diags := hclsyntax.ParseConfig(text, filepath.Base(name), hcl.InitialPos)
		if diags.HasErrors() {
			return nil, diags
		}
		body, ok := f.Body.(*hclsyntax.Body)
		if !ok {
			return nil, errors.New(name + " has no body")
		}
		for _, b := range body.Blocks {
			if err := m.add(b, values); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func (m *Module) add(b *hclsyntax.Block, values map[string]cty.Value) error {
	switch b.Type {
	case "variable":
		return m.variable(b, values)
	case "locals":
		for name, a := range b.Body.Attributes {
			m.locals[name] = a.Expr
		}
	case "output":
		m.outputs[b.Labels[0]] = b.Body.Attributes["value"].Expr
	case "resource":
		m.blocks[b.Labels[0]+"."+b.Labels[1]] = b
	case "data":
		m.blocks["data."+b.Labels[0]+"."+b.Labels[1]] = b
	case "terraform":
	default:
		return fmt.Errorf("%s: a block %s is not known here", b.Range(), b.Type)
	}
	return nil
}

func (m *Module) variable(b *hclsyntax.Block, values map[string]cty.Value) error {
	name := b.Labels[0]
	if a, ok := b.Body.Attributes["default"]; ok {
		v, diags := a.Expr.Value(nil)
		if diags.HasErrors() {
			return diags
		}
		m.variables[name] = v
	}
	if v, ok := values[name]; ok {
		m.variables[name] = v
	}
	if _, ok := m.variables[name]; !ok {
		return fmt.Errorf("the variable %s has no value", name)
	}
	for _, inner := range b.Body.Blocks {
		ok, err := m.eval(inner.Body.Attributes["condition"].Expr, nil)
		if err != nil {
			return err
		}
		if ok.False() {
			return fmt.Errorf("the variable %s is not valid: %s", name, inner.Range())
		}
	}
	return nil
}

// Resources evaluates all resources and outputs. What is not asked for by anything is asked for
// here: a name that is declared nowhere is found wherever it stands.
func (m *Module) Resources() (map[string]cty.Value, error) {
	all := map[string]cty.Value{}
	for name := range m.blocks {
		v, err := m.block(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all[name] = v
	}
	for name, expr := range m.outputs {
		v, err := m.eval(expr, nil)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", name, err)
		}
		all["output."+name] = v
	}
	return all, nil
}

// eval gives an expression what it names.
func (m *Module) eval(expr hcl.Expression, each map[string]cty.Value) (cty.Value, error) {
	scope := map[string]map[string]cty.Value{"var": m.variables}
	if each != nil {
		scope["each"] = each
	}
	put := func(root, name string, v cty.Value) {
		if scope[root] == nil {
			scope[root] = map[string]cty.Value{}
		}
		scope[root][name] = v
	}
	data := map[string]map[string]cty.Value{}
	for _, t := range expr.Variables() {
		root := t.RootName()
		second, third := step(t, 1), step(t, 2)
		switch root {
		case "var", "each":
		case "local":
			v, err := m.local(second)
			if err != nil {
				return cty.NilVal, err
			}
			put("local", second, v)
		case "data":
			v, err := m.block("data." + second + "." + third)
			if err != nil {
				return cty.NilVal, err
			}
			if data[second] == nil {
				data[second] = map[string]cty.Value{}
			}
			data[second][third] = v
		default:
			v, err := m.block(root + "." + second)
			if err != nil {
				return cty.NilVal, err
			}
			put(root, second, v)
		}
	}
	for kind, named := range data {
		put("data", kind, cty.ObjectVal(named))
	}
	context := &hcl.EvalContext{Variables: map[string]cty.Value{}, Functions: functions}
	for root, names := range scope {
		context.Variables[root] = cty.ObjectVal(names)
	}
	v, diags := expr.Value(context)
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	return v, nil
}

func step(t hcl.Traversal, i int) string {
	if i < len(t) {
		if a, ok := t[i].(hcl.TraverseAttr); ok {
			return a.Name
		}
	}
	return ""
}

func (m *Module) local(name string) (cty.Value, error) {
	expr, ok := m.locals[name]
	if !ok {
		return cty.NilVal, fmt.Errorf("there is no local.%s", name)
	}
	return m.once("local."+name, func() (cty.Value, error) { return m.eval(expr, nil) })
}

// errCircle is of what needs itself.
var errCircle = errors.New("it needs itself")

func (m *Module) once(name string, f func() (cty.Value, error)) (cty.Value, error) {
	if v, ok := m.done[name]; ok {
		if v == cty.NilVal {
			return v, fmt.Errorf("%s: %w", name, errCircle)
		}
		return v, nil
	}
	m.done[name] = cty.NilVal
	v, err := f()
	if err != nil {
		return cty.NilVal, err
	}
	m.done[name] = v
	return v, nil
}

// block is a resource or data source: an object, or with for_each an object of such.
func (m *Module) block(name string) (cty.Value, error) {
	b, ok := m.blocks[name]
	if !ok {
		return cty.NilVal, fmt.Errorf("there is no %s", name)
	}
	return m.once(name, func() (cty.Value, error) {
		over, ok := b.Body.Attributes["for_each"]
		if !ok {
			return m.instance(b, nil)
		}
		keys, err := m.eval(over.Expr, nil)
		if err != nil {
			return cty.NilVal, err
		}
		all := map[string]cty.Value{}
		for it := keys.ElementIterator(); it.Next(); {
			k, v := it.Element()
			if keys.Type().IsSetType() {
				k = v
			}
			one, err := m.instance(b, map[string]cty.Value{"key": k, "value": v})
			if err != nil {
				return cty.NilVal, fmt.Errorf("[%s]: %w", k.AsString(), err)
			}
			all[k.AsString()] = one
		}
		return cty.ObjectVal(all), nil
	})
}

func (m *Module) instance(b *hclsyntax.Block, each map[string]cty.Value) (cty.Value, error) {
	if len(b.Body.Blocks) > 0 {
		return cty.NilVal, fmt.Errorf("%s: blocks in blocks are not known here", b.Range())
	}
	attributes := map[string]cty.Value{}
	for name, a := range b.Body.Attributes {
		if name == "for_each" {
			continue
		}
		v, err := m.eval(a.Expr, each)
		if err != nil {
			return cty.NilVal, err
		}
		attributes[name] = v
	}
	var more map[string]cty.Value
	if b.Type == "data" {
		var err error
		if more, err = m.data(b.Labels[0], attributes); err != nil {
			return cty.NilVal, err
		}
	} else {
		more = m.computed(b.Labels[0], attributes)
	}
	for name, v := range more {
		attributes[name] = v
	}
	return cty.ObjectVal(attributes), nil
}

// functions are those of Terraform's that the example uses.
var functions = map[string]function.Function{
	"concat": stdlib.ConcatFunc, "contains": stdlib.ContainsFunc, "jsondecode": stdlib.JSONDecodeFunc, "jsonencode": stdlib.JSONEncodeFunc,
	"length": stdlib.LengthFunc, "merge": stdlib.MergeFunc, "reverse": stdlib.ReverseListFunc, "setunion": stdlib.SetUnionFunc, "split": stdlib.SplitFunc,
	"toset": stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)), "try": tryfunc.TryFunc,
	"one": function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.DynamicPseudoType}},
		Type:   function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			elements := args[0].AsValueSlice()
			if len(elements) != 1 {
				return cty.NilVal, fmt.Errorf("it has %d elements", len(elements))
			}
			return elements[0], nil
		},
	}),
}

// Names are what there is of a kind, in order.
func Names(all map[string]cty.Value) (names []string) {
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
