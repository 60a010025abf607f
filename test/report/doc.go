// Package report is the common part of the benchmarks and the lab: their commands, a description of
// the machine, and Markdown with tables. The meaning of a figure is up to its author.
package report
