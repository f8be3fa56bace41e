"""The documentation site: docs/ and what it links to, with a reference generated from the product, as static pages."""
