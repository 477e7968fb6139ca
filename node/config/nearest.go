package config

// Nearest is the candidate with the smallest edit distance to s, or "" when even that one differs in
// more than a third of its characters. Among equals the first wins.
func Nearest(s string, candidates []string) string {
	best, least := "", 0
	for _, c := range candidates {
		if d := distance(s, c); best == "" || d < least {
			best, least = c, d
		}
	}
	if least > max(2, len(best)/3) {
		return ""
	}
	return best
}

// distance counts the insertions, deletions and replacements of a byte that turn a into b
// (Wagner and Fischer 1974), in memory proportional to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
