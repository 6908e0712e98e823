// Package page shows what a disruption benchmark found to those who must approve the
// downtime: a page in one file that needs no network, pictures, a document, a table.
//
// It renders values of package result and decides nothing: what was not measured is
// listed, and has no number anywhere. The charts of the page are drawn by Apache ECharts
// (assets, Apache License 2.0), which is in the page.
package page
