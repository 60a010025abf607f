// Package report is what the benchmarks and the lab write with: a description of the machine that figures are from, and
// Markdown with tables. It judges nothing; what a figure means is said by who measured it.
package report
