// Package human writes numbers the way people read them: sizes, ages, counts, shares,
// and states with their reasons.
//
// Promises: every form is short, has one decimal at most, and names its unit; negative values are
// written as zero. For programs there are --json and /metrics, which give plain numbers.
//
// What it does not do: it parses nothing; node/config reads sizes and durations.
//
// Start reading at human.go. The test that shows it whole is TestForms.
package human
