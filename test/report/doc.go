// Package report is the common part of the benchmark and lab reports: a description of the machine,
// and Markdown with tables. The meaning of a figure is up to its author.
package report
