package docs

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// Command is a command line as it stands in a text.
type Command struct {
	Line  int
	Words []string
}

// Placeholder tells of a word that stands for another: …, <name>, $NAME.
func Placeholder(word string) bool {
	return strings.ContainsAny(word, "…$") || strings.Contains(word, "...") || angled.MatchString(word)
}

var angled = regexp.MustCompile(`<[^<>]*>`)

// shells are the languages of blocks whose lines are run in a shell; console shows what is
// printed, too, and only what follows its $ is run.
var shells = []string{"", "sh", "bash", "shell"}

// Commands are the commands of a page's blocks, in order.
func (p Page) Commands() (all []Command) {
	for _, b := range p.Blocks {
		if b.Language == "console" || slices.Contains(shells, b.Language) {
			all = append(all, commands(b)...)
		}
	}
	return all
}

func commands(b Block) (all []Command) {
	var text string
	var begun int
	for _, line := range b.Lines {
		s := line.Text
		if text == "" {
			begun = line.Number
			prompt, after, ok := strings.Cut(strings.TrimLeft(s, " "), "$ ")
			switch {
			case ok && prompt == "":
				s = after
			case b.Language == "console":
				continue
			}
		}
		if before, ok := strings.CutSuffix(s, `\`); ok {
			text += before + " "
			continue
		}
		for _, words := range Split(text + s) {
			all = append(all, Command{begun, words})
		}
		text = ""
	}
	return all
}

// Split takes a line of shell apart into its commands and their words, those of $(…) behind the
// one in which they stand. Redirections and comments are left out. It knows as much of a shell as
// documentation needs.
func Split(line string) (all [][]string) {
	var words []string
	var word strings.Builder
	var inner [][]string
	var in, skip bool
	end := func() {
		if in && !skip {
			words = append(words, word.String())
		}
		if in {
			skip = false
		}
		word.Reset()
		in = false
	}
	command := func() {
		end()
		if len(words) > 0 {
			all = append(all, words)
		}
		all = append(all, inner...)
		words, inner, skip = nil, nil, false
	}
	r := []rune(line)
	for i := 0; i < len(r); i++ {
		switch c := r[i]; {
		case c == ' ' || c == '\t':
			end()
		case c == '#' && !in:
			i = len(r)
		case c == '\'' || c == '"':
			in = true
			for i++; i < len(r) && r[i] != c; i++ {
				if c == '"' && r[i] == '\\' && i+1 < len(r) {
					i++
				} else if c == '"' && substitution(r, i) {
					from := i
					i = closing(r, i+2)
					inner = append(inner, Split(string(r[from+2:i]))...)
					word.WriteString("$()")
					continue
				}
				word.WriteRune(r[i])
			}
		case c == '\\' && i+1 < len(r):
			in = true
			i++
			word.WriteRune(r[i])
		case substitution(r, i):
			in = true
			from := i
			i = closing(r, i+2)
			inner = append(inner, Split(string(r[from+2:min(i, len(r))]))...)
			word.WriteString("$()")
		case c == '<' && angled.MatchString(string(r[i:])) && angled.FindStringIndex(string(r[i:]))[0] == 0:
			in = true
			n := len([]rune(angled.FindString(string(r[i:]))))
			word.WriteString(string(r[i : i+n]))
			i += n - 1
		case c == '>' || c == '<':
			// The name of a file follows; a descriptor may precede.
			if in && strings.Trim(word.String(), "0123456789") == "" {
				word.Reset()
				in = false
			}
			end()
			for i+1 < len(r) && (r[i+1] == '>' || r[i+1] == '&' || r[i+1] == '<') {
				i++
			}
			skip = true
		case c == '|' || c == ';' || c == '&':
			command()
		default:
			in = true
			word.WriteRune(c)
		}
	}
	command()
	return all
}

// substitution: a command is put in here. $(tenant), one word alone, is a variable of a template.
func substitution(r []rune, i int) bool {
	return r[i] == '$' && i+1 < len(r) && r[i+1] == '(' && slices.Contains(r[i+2:closing(r, i+2)], ' ')
}

// closing is where the parenthesis ends that was opened before from.
func closing(r []rune, from int) int {
	for depth, i := 1, from; i < len(r); i++ {
		switch r[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(r)
}

var assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// Arguments are what is given to the program, which may be called by a path, behind assignments,
// in a container (behind --), or as its Go package; ok says whether the command is one of it.
func (c Command) Arguments(program, goPackage string) (args []string, ok bool) {
	words := c.Words
	for len(words) > 0 && assignment.MatchString(words[0]) {
		words = words[1:]
	}
	if len(words) > 2 && words[0] == "go" && words[1] == "run" && words[2] == goPackage {
		return words[3:], true
	}
	if len(words) > 0 && path.Base(words[0]) == program {
		return words[1:], true
	}
	if i := slices.Index(words, "--"); i > 0 && i+1 < len(words) && path.Base(words[i+1]) == program {
		return words[i+2:], true
	}
	return nil, false
}
