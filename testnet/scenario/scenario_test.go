package scenario

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

const story = `# A claim
# in two lines.
#
# And a remark.

mesh ana ben
# a remark in between
ana: peers
> NAME  STATE
> ben   alive
within 1m30s everyone sees ben dead
> ana: ben dead
`

// fake is a world that prints what it is asked, and fails at one phrase.
type fake struct {
	fails Phrase
	done  []string
}

func (f *fake) Do(_ context.Context, step Step) ([]string, error) {
	if step.Phrase == f.fails {
		return nil, errors.New("it does not")
	}
	f.done = append(f.done, step.Text)
	switch step.Phrase {
	case Run:
		return []string{"NAME  STATE ", "ben   alive"}, nil
	case Within:
		return []string{step.Names[0] + ": " + step.Others[0] + " " + step.State}, nil
	}
	return nil, nil
}

// A script is read, played, compared with its transcript and written again.
func TestPlay(t *testing.T) {
	script, err := Parse(story)
	if err != nil {
		t.Fatal(err)
	}
	if script.Claim != "A claim in two lines." {
		t.Errorf("claim %q", script.Claim)
	}
	printed, err := Play(t.Context(), script, &fake{})
	if err != nil {
		t.Fatal(err)
	}
	want := "within 1m30s everyone sees ben dead\n  want > ana: ben dead\n  got  > everyone: ben dead\n"
	if got := Compare(script, printed); got != want {
		t.Errorf("differs in\n%swant\n%s", got, want)
	}
	if got, want := script.Render(printed), strings.Replace(story, "> ana:", "> everyone:", 1); got != want {
		t.Errorf("rendered\n%s\nwant\n%s", got, want)
	}
}

// A sentence that does not hold ends the scenario there.
func TestPlayStops(t *testing.T) {
	script, err := Parse(story)
	if err != nil {
		t.Fatal(err)
	}
	world := &fake{fails: Run}
	printed, err := Play(t.Context(), script, world)
	if err == nil || !strings.Contains(err.Error(), `"ana: peers": it does not`) {
		t.Errorf("error %v", err)
	}
	if len(printed) != 1 || len(world.done) != 1 {
		t.Errorf("played %v", world.done)
	}
	if got := Compare(script, printed); !strings.Contains(got, "want > NAME  STATE") {
		t.Errorf("a transcript that is not reached counts as equal: %q", got)
	}
}

func TestSentences(t *testing.T) {
	for text, want := range map[string]Step{
		"node ana":                    {Phrase: Nodes, Names: []string{"ana"}},
		"nodes n9..n11 ben":           {Phrase: Nodes, Names: []string{"n9", "n10", "n11", "ben"}},
		"node ana at 10.77.0.9":       {Phrase: NodeAt, Names: []string{"ana"}, Address: netip.MustParseAddr("10.77.0.9")},
		"nodes ana ben with a.b=c d":  {Phrase: NodesWith, Names: []string{"ana", "ben"}, Rest: "a.b=c d"},
		"partition ana | ben cai":     {Phrase: Partition, Groups: [][]string{{"ana"}, {"ben", "cai"}}},
		"slow 40ms ana | ben":         {Phrase: Slow, Duration: 40 * time.Millisecond, Groups: [][]string{{"ana"}, {"ben"}}},
		"lose ana -> ben":             {Phrase: Lose, Names: []string{"ana"}, Others: []string{"ben"}},
		"ben cai join ana":            {Phrase: Join, Names: []string{"ben", "cai"}, Others: []string{"ana"}},
		"ana: peers ben --json":       {Phrase: Run, Names: []string{"ana"}, Rest: "peers ben --json"},
		"CODE = ana: invite --uses 1": {Phrase: Keep, Word: "CODE", Names: []string{"ana"}, Rest: "invite --uses 1"},
		"within 10s everyone sees ben cai dead": {Phrase: Within, Duration: 10 * time.Second, Names: []string{Everyone},
			Others: []string{"ben", "cai"}, State: "dead"},
		"within 5s all see each other": {Phrase: WithinAll, Duration: 5 * time.Second},
		"for 3s ana sees mallory absent": {Phrase: Throughout, Duration: 3 * time.Second, Names: []string{"ana"},
			Others: []string{"mallory"}, State: "absent"},
		"within 9s ana is as noted":           {Phrase: AsNoted, Duration: 9 * time.Second, Names: []string{"ana"}},
		"ana ben take under 250MiB":           {Phrase: Takes, Names: []string{"ana", "ben"}, Rest: "250MiB"},
		"within 9s ana: status":               {Phrase: WithinPrinted, Duration: 9 * time.Second, Names: []string{"ana"}, Rest: "status"},
		"mallory attacks ana with hellos 100": {Phrase: Attack, Names: []string{"mallory"}, Others: []string{"ana"}, Rest: "hellos 100"},
		"heal":                                {Phrase: Heal},
	} {
		want.Text = text
		if got, err := parseStep(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", text, got, err, want)
		}
	}
}

// Every phrase but those before it in the list can be reached, and none swallows another.
func TestPhrases(t *testing.T) {
	values := strings.NewReplacer("NAMES", "ana ben", "NAME", "cai", "GROUPS", "ana | ben", "DURATION", "3s",
		"ADDRESS", "10.77.0.9", "STATE", "dead", "WORD", "CODE", "TEXT", "some text")
	for _, m := range Phrases() {
		var words []string
		for part := range strings.FieldsSeq(string(m.Phrase)) {
			first, _, _ := strings.Cut(part, "/")
			words = append(words, values.Replace(first))
		}
		text := strings.Join(words, " ")
		if got, err := parseStep(text); err != nil || got.Phrase != m.Phrase {
			t.Errorf("%q is taken for %q, want %q (%v)", text, got.Phrase, m.Phrase, err)
		}
		if m.Meaning == "" {
			t.Errorf("%s means nothing", m.Phrase)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "does not begin with a comment",
		"mesh ana":                             "does not begin with a comment",
		"> x":                                  "line 1: a transcript before",
		"# c\n\ndance ana":                     "line 3: \"dance ana\": no phrase",
		"# c\nkill Ana":                        "\"Ana\" is no name",
		"# c\nkill dead":                       "\"dead\" cannot be a name",
		"# c\nkill":                            "no phrase",
		"# c\nnodes n3..n1":                    "no range",
		"# c\nnodes n0..n1000":                 "no range",
		"# c\nnodes n0..n900 m0..m900":         "more than 1000 names",
		"# c\nmove ana to home":                "home",
		"# c\nwait 3":                          "missing unit",
		"# c\nwait 999h":                       "not between",
		"# c\nwithin 3s ana sees ben tired":    "\"tired\" is none of alive",
		"# c\npartition ana | | ben":           "no name",
		"# c\n" + strings.Repeat("x", maxSize): "at most",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(story)
	f.Add("# c\n>\n")
	f.Add("# c\nnodes n1..n3\n\n> a\r\n>b")
	f.Add("# c\nx = ana: b\nwithin 1s a b see c d left\nlose a -> b")
	f.Fuzz(func(t *testing.T, text string) {
		script, err := Parse(text)
		if err != nil {
			return
		}
		var printed [][]string
		for _, step := range script.Steps {
			printed = append(printed, step.Want)
		}
		again, err := Parse(script.Render(printed))
		if err != nil {
			t.Fatalf("what Render wrote cannot be read: %v", err)
		}
		if len(again.Steps) != len(script.Steps) || again.Claim != script.Claim || Compare(again, printed) != "" {
			t.Errorf("read %+v\nthen %+v", script, again)
		}
	})
}
