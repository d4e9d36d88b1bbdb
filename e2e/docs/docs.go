// Package docs reads the project's documentation, for the tests that hold it to the code:
// links and anchors, and the commands that it tells people to run.
package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Page is one Markdown file, or another text in which commands stand.
type Page struct {
	// Path is from the repository's root, with slashes.
	Path    string
	Links   []Link
	Anchors []string
	Blocks  []Block
	// Spans are the pieces of code within its sentences.
	Spans []Line
	// Text are all its lines.
	Text []Line
}

// Link is where a link or an image goes, as written.
type Link struct {
	Line   int
	Target string
}

// Line is a text and the number of its line in the file.
type Line struct {
	Number int
	Text   string
}

// Block is a fenced block of code.
type Block struct {
	Language string
	Lines    []Line
}

// Where names a line for people.
func (p Page) Where(line int) string { return fmt.Sprintf("%s:%d", p.Path, line) }

// ignored are folders that hold nothing of the project's own documentation.
var ignored = []string{".git", "build", "testdata", "node_modules"}

// Files are the files under root whose names end in one of the suffixes, with slashes, in
// order.
func Files(root string, suffixes ...string) (files []string, err error) {
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(ignored, d.Name()):
			return filepath.SkipDir
		case d.IsDir() || !slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(d.Name(), s) }):
			return nil
		}
		rel, err := filepath.Rel(root, name)
		files = append(files, filepath.ToSlash(rel))
		return err
	})
	return files, err
}

// Pages reads the Markdown files under root.
func Pages(root string) (pages []Page, err error) {
	files, err := Files(root, ".md")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			return nil, err
		}
		pages = append(pages, Read(name, string(text)))
	}
	return pages, nil
}

var (
	fence = regexp.MustCompile("^ {0,3}(```+|~~~+) *([a-zA-Z0-9+-]*)")
	// A code span ends with as many backticks as it began with.
	span    = regexp.MustCompile("``(.+?)``|`([^`]+)`")
	link    = regexp.MustCompile(`\]\(<?([^()\s<>]*(?:\([^()\s]*\)[^()\s<>]*)?)>?(?:\s+"[^"]*")?\)`)
	named   = regexp.MustCompile(`^ {0,3}\[[^\]]+\]:\s+<?([^\s>]+)>?`)
	html    = regexp.MustCompile(`(?:href|src)="([^"]+)"`)
	heading = regexp.MustCompile(`^ {0,3}#{1,6}\s+(.+?)\s*#*$`)
	anchor  = regexp.MustCompile(`<a\s+(?:id|name)="([^"]+)"`)
	// What is seen of a link is its text.
	shown = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
)

// Read takes a Markdown text apart, as far as these tests need it.
func Read(name, text string) Page {
	p := Page{Path: name}
	times := map[string]int{}
	var open string
	var block *Block
	for i, line := range strings.Split(text, "\n") {
		n := i + 1
		p.Text = append(p.Text, Line{n, line})
		if m := fence.FindStringSubmatch(line); m != nil {
			switch {
			case open == "":
				open, block = m[1], &Block{Language: m[2]}
				continue
			case strings.HasPrefix(m[1], open) && strings.TrimSpace(line) == m[1]:
				p.Blocks = append(p.Blocks, *block)
				open, block = "", nil
				continue
			}
		}
		if block != nil {
			block.Lines = append(block.Lines, Line{n, line})
			continue
		}
		for _, m := range span.FindAllStringSubmatch(line, -1) {
			p.Spans = append(p.Spans, Line{n, strings.TrimSpace(m[1] + m[2])})
		}
		if m := heading.FindStringSubmatch(line); m != nil {
			slug := Slug(m[1])
			if k := times[slug]; k > 0 {
				p.Anchors = append(p.Anchors, fmt.Sprintf("%s-%d", slug, k))
			} else {
				p.Anchors = append(p.Anchors, slug)
			}
			times[slug]++
		}
		plain := span.ReplaceAllString(line, "code")
		for _, m := range anchor.FindAllStringSubmatch(plain, -1) {
			p.Anchors = append(p.Anchors, m[1])
		}
		for _, form := range []*regexp.Regexp{link, named, html} {
			for _, m := range form.FindAllStringSubmatch(plain, -1) {
				p.Links = append(p.Links, Link{n, m[1]})
			}
		}
	}
	return p
}

// Slug is the anchor that GitHub makes of a heading: lower case, a hyphen for each space, and of
// the rest only letters, digits, hyphens and underscores.
func Slug(heading string) string {
	text := strings.ReplaceAll(shown.ReplaceAllString(heading, "$1"), "`", "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, text)
}

// Outside tells of a link that leaves the repository.
func Outside(target string) bool {
	return strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:")
}

// Resolve is the file, from the repository's root, and the anchor that a link on the page goes to.
func (p Page) Resolve(target string) (file, anchor string) {
	file, anchor, _ = strings.Cut(target, "#")
	switch {
	case file == "":
		file = p.Path
	case strings.HasPrefix(file, "/"):
		file = strings.TrimPrefix(path.Clean(file), "/")
	default:
		file = path.Join(path.Dir(p.Path), file)
	}
	return file, anchor
}
