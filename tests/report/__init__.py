"""The report: its data, its page in a browser, and the page that is kept current."""
