package scenario

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a script.
const (
	maxSize  = 64 << 10
	maxNames = 1000
	maxWait  = 20 * time.Minute
)

// Script is a scenario as it stands in its file.
type Script struct {
	Claim string // what is proved
	Steps []Step
	lines []string // of the file, without the transcript
}

// Step is one sentence. What the words in capitals of its phrase stood for is in the fields of that kind.
type Step struct {
	Phrase   Phrase
	Line     int           // in the file without transcript, from 0
	Text     string        // as written
	Names    []string      // the first NAME or NAMES
	Others   []string      // the second one
	Groups   [][]string    // GROUPS
	Duration time.Duration // DURATION
	Address  netip.Addr    // ADDRESS
	State    string        // STATE
	Word     string        // WORD
	Rest     string        // TEXT
	Want     []string      // the transcript, without "> "
}

// Parse reads a script. An error names the line.
func Parse(text string) (*Script, error) {
	if len(text) > maxSize {
		return nil, fmt.Errorf("the script has %d bytes, at most %d", len(text), maxSize)
	}
	s := &Script{}
	claiming := true
	for number, line := range strings.Split(text, "\n") {
		if said, found := strings.CutPrefix(line, ">"); found {
			if len(s.Steps) == 0 {
				return nil, fmt.Errorf("line %d: a transcript before the first sentence", number+1)
			}
			last := &s.Steps[len(s.Steps)-1]
			last.Want = append(last.Want, strings.TrimPrefix(said, " "))
			continue
		}
		s.lines = append(s.lines, line)
		if said, found := strings.CutPrefix(line, "#"); found {
			if said = strings.TrimSpace(said); said == "" {
				claiming = claiming && s.Claim == ""
			} else if claiming {
				s.Claim = strings.TrimSpace(s.Claim + " " + said)
			}
			continue
		}
		if sentence := strings.TrimSpace(line); sentence != "" {
			step, err := parseStep(sentence)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", number+1, err)
			}
			step.Line = len(s.lines) - 1
			s.Steps = append(s.Steps, step)
			claiming = false
		}
		claiming = claiming && s.Claim == "" // the claim ends with the comment's paragraph
	}
	if s.Claim == "" {
		return nil, errors.New("the script does not begin with a comment that says what it proves")
	}
	return s, nil
}

// Render is the file with another transcript: printed[i] are the lines that step i printed.
func (s *Script) Render(printed [][]string) string {
	var out strings.Builder
	next := 0
	for number, line := range s.lines {
		if number > 0 {
			out.WriteByte('\n')
		}
		out.WriteString(line)
		for ; next < len(s.Steps) && s.Steps[next].Line == number; next++ {
			if next >= len(printed) {
				continue
			}
			for _, said := range printed[next] {
				out.WriteString(strings.TrimRight("\n> "+said, " "))
			}
		}
	}
	return out.String()
}

// parseStep finds the phrase a sentence has the form of.
func parseStep(sentence string) (Step, error) {
	words := strings.Fields(sentence)
	var nearest error
	for _, m := range Phrases() {
		step := Step{Phrase: m.Phrase, Text: sentence}
		err := step.match(strings.Fields(string(m.Phrase)), words)
		if err == nil {
			return step, nil
		}
		var wrong *valueError
		if errors.As(err, &wrong) && nearest == nil {
			nearest = err
		}
	}
	if nearest == nil {
		nearest = errors.New("no phrase has this form")
	}
	return Step{}, fmt.Errorf("%q: %w", sentence, nearest)
}

// valueError means that a sentence has a phrase's form, but what stands in a place is not of its kind.
type valueError struct{ error }

// errForm means that the sentence does not have the phrase's form.
var errForm = errors.New("another form")

// match fills the step from words as the phrase's parts say.
func (s *Step) match(parts, words []string) error {
	var wrong error
	for i, part := range parts {
		if part == "TEXT" {
			if len(words) == 0 {
				return errForm
			}
			s.Rest = strings.Join(words, " ")
			return wrong
		}
		if kind := strings.TrimSuffix(part, ":"); isKind(kind) {
			taken := s.extent(kind, parts[i+1:], words)
			if taken == 0 {
				return errForm
			}
			value := slices.Clone(words[:taken])
			if kind != part { // NAME: is one word with a colon
				bare, found := strings.CutSuffix(value[0], ":")
				if !found {
					return errForm
				}
				value[0] = bare
			}
			if err := s.take(kind, value); err != nil && wrong == nil {
				wrong = &valueError{err}
			}
			words = words[taken:]
			continue
		}
		if len(words) == 0 || !slices.Contains(strings.Split(part, "/"), words[0]) {
			return errForm
		}
		words = words[1:]
	}
	if len(words) > 0 {
		return errForm
	}
	return wrong
}

// isKind tells whether a part of a phrase stands for something else than itself.
func isKind(part string) bool {
	return slices.Contains([]string{"NAME", "NAMES", "GROUPS", "DURATION", "ADDRESS", "STATE", "WORD"}, part)
}

// extent is how many of the words a part takes: lists go on up to the next fixed word, or to what the rest needs.
func (s *Step) extent(kind string, rest, words []string) int {
	if len(words) == 0 {
		return 0
	}
	if kind != "NAMES" && kind != "GROUPS" {
		return 1
	}
	if len(rest) == 0 {
		return len(words)
	}
	if isKind(rest[0]) {
		return max(0, len(words)-len(rest))
	}
	for i, word := range words {
		if slices.Contains(strings.Split(rest[0], "/"), word) {
			return i
		}
	}
	return 0
}

// take puts the words a part stands for where they belong.
func (s *Step) take(kind string, words []string) (err error) {
	word := words[0]
	switch kind {
	case "NAME", "NAMES":
		names, err := parseNames(words)
		if s.Names == nil {
			s.Names = names
		} else {
			s.Others = names
		}
		return err
	case "GROUPS":
		s.Groups, err = parseGroups(words)
	case "DURATION":
		if s.Duration, err = time.ParseDuration(word); err == nil && (s.Duration < 0 || s.Duration > maxWait) {
			err = fmt.Errorf("duration %s is not between 0 and %v", word, maxWait)
		}
	case "ADDRESS":
		s.Address, err = netip.ParseAddr(word)
	case "STATE":
		if s.State = word; !slices.Contains(States(), word) {
			err = fmt.Errorf("%q is none of %s", word, strings.Join(States(), ", "))
		}
	case "WORD":
		s.Word = word
	}
	return err
}

// parseGroups reads names with | between groups; two groups at least name what is divided from what.
func parseGroups(words []string) ([][]string, error) {
	var groups [][]string
	for group := range strings.SplitSeq(strings.Join(words, " "), "|") {
		names, err := parseNames(strings.Fields(group))
		if err != nil {
			return nil, err
		}
		groups = append(groups, names)
	}
	return groups, nil
}

// parseNames reads names and ranges of them.
func parseNames(words []string) ([]string, error) {
	var names []string
	for _, word := range words {
		more, err := Expand(strings.TrimSuffix(word, ","))
		if err != nil {
			return nil, err
		}
		if names = append(names, more...); len(names) > maxNames {
			return nil, fmt.Errorf("more than %d names", maxNames)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("no name")
	}
	return names, nil
}

// Expand turns n1..n3 into n1, n2, n3, and any other name into itself.
func Expand(word string) ([]string, error) {
	first, last, isRange := strings.Cut(word, "..")
	if !isRange {
		return []string{word}, checkName(word)
	}
	stem := strings.TrimRight(first, "0123456789")
	from, err1 := strconv.Atoi(strings.TrimPrefix(first, stem))
	digits, found := strings.CutPrefix(last, stem)
	to, err2 := strconv.Atoi(digits)
	if err1 != nil || err2 != nil || !found || from < 0 || to < from || to-from >= maxNames {
		return nil, fmt.Errorf("%q is no range like n1..n50", word)
	}
	var names []string
	for i := from; i <= to; i++ {
		names = append(names, stem+strconv.Itoa(i))
	}
	return names, checkName(names[0])
}

// checkName tells what is wrong with a node's name.
func checkName(name string) error {
	for i, c := range name {
		if c >= 'a' && c <= 'z' || i > 0 && (c >= '0' && c <= '9' || c == '-') {
			continue
		}
		return fmt.Errorf("%q is no name: lower-case letters, then also digits and -", name)
	}
	if name == "" || len(name) > 32 || reserved(name) {
		return fmt.Errorf("%q cannot be a name", name)
	}
	return nil
}
