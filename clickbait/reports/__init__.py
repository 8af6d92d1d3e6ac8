"""HTML pages and plots from plain figures. Imports nothing else of this project."""
