"""Files of rows, as tests of their readers write them."""


def write(directory, name, content):
    """Writes bytes, or text in UTF-8; returns the path, a str."""
    path = directory / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)
