"""Readers that come with this package, a folder each; `qa.models.PACKAGED_READERS` names them."""
