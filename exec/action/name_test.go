package action

import (
	"strings"
	"testing"
)

func TestElement(t *testing.T) {
	for in, want := range map[string]string{
		"buildstream/greeting/hello.bst": "greeting/hello.bst", "buildstream/greeting/folder-hello.bst": "greeting/folder-hello.bst",
		"": "", "buildstream": "", "buildstream/hello.bst": "", "buildstream//hello.bst": "", "buildstream/greeting/hello": "",
		"buildstream/greeting/hello.bst/src.bst": "", "home/buildstream/greeting/hello.bst": "",
	} {
		if got := (&Action{WorkingDirectory: in}).Element(); got != want {
			t.Errorf("in %q it builds %q, want %q", in, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	long := strings.Repeat("x", maxWords)
	for _, c := range []struct {
		arguments []string
		want      string
	}{
		{[]string{"gcc", "-c", "a.c"}, "gcc -c a.c"},
		{[]string{"sh", "-c", "set -e\n\tmake  all\n"}, "sh -c set -e make all"},
		{[]string{"", long}, long},
		{[]string{"a", long}, "a " + long[:maxWords-2] + "..."},
		{[]string{long + "y"}, long + "..."},
		{[]string{long[1:] + "\u00fcy"}, long[1:] + "..."},
	} {
		if got := (&Action{Arguments: c.arguments}).Words(); got != c.want {
			t.Errorf("%q begins with %q, want %q", c.arguments, got, c.want)
		}
	}
}
