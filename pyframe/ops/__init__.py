"""The built-in ops, one family a file, as in core_c."""
