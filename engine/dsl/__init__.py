"""The definition language: pure, deterministic, and light to import.

- `checking.check(text, file, types)` is the one door: text in, problems or a compiled definition out.
- `activity_types.ActivityTypes.default()` is what it knows of activity types.
- `compiler.canonical` and `compiler.digest` make the bytes and the digests that runs are pinned to.
- `expressions`, `environment` and `templates` compile and evaluate `${{ … }}`.
- `schema` holds the types of the language; `export` generates from them whatever others read.

Nothing is imported here, so that each user loads only what it needs: `validate` neither Pydantic nor a
server's libraries, the worker no YAML.
"""
