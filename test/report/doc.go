// Package report is the common part of the benchmark and lab reports: a description of the machine,
// and Markdown with tables. It judges nothing; what a figure means is up to its author.
package report
