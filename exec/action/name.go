package action

import "strings"

// elements is where BuildStream runs the commands of an element: in elements/PROJECT/ELEMENT, unless a project says otherwise.
const elements = "buildstream/"

// Element is the BuildStream element that the action builds, as PROJECT/ELEMENT, by the directory it works in: BuildStream names
// no target. "" for every other action.
func (a *Action) Element() string {
	name, is := strings.CutPrefix(a.WorkingDirectory, elements)
	if project, element, both := strings.Cut(name, "/"); !is || !both || project == "" || !strings.HasSuffix(element, ".bst") || strings.Contains(element, "/") {
		return ""
	}
	return name
}

// maxWords bounds Words, in bytes.
const maxWords = 80

// Words is the begin of the command, for people where nothing names the action: valid UTF-8, as the command is.
func (a *Action) Words() string {
	var words strings.Builder
	for _, argument := range a.Arguments {
		for _, word := range strings.Fields(argument) {
			if words.Len() > 0 {
				words.WriteByte(' ')
			}
			if words.WriteString(word); words.Len() > maxWords {
				return strings.ToValidUTF8(words.String()[:maxWords], "") + "..."
			}
		}
	}
	return words.String()
}
