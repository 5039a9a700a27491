"""Is what stands in the file an OpenAPI document, and is each of its examples what its schema asks for?

    python document.py openapi.json
"""

import json
import sys

from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator, validate


def examples(node, path=""):
    """Every schema with an example of it: a media type's, a parameter's or a header's, and a schema's own."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from examples(item, f"{path}/{index}")
    if not isinstance(node, dict):
        return
    schema = node.get("schema", node if "type" in node else None)
    if schema is not None and "example" in node:
        yield path, schema, node["example"]
    if "schema" in node:
        for name, example in node.get("examples", {}).items():
            yield f"{path}/examples/{name}", schema, resolved(example)["value"]
    for name, value in node.items():
        if name not in ("example", "examples"):
            yield from examples(value, f"{path}/{name}")


def resolved(example):
    if "$ref" in example:
        return document["components"]["examples"][example["$ref"].rsplit("/", 1)[1]]
    return example


document = json.load(open(sys.argv[1]))
validate(document, cls=OpenAPIV31SpecValidator)
checked = 0
for path, schema, example in examples(document):
    # The references of a schema lead into the document's components.
    whole = {"components": document["components"], **schema}
    try:
        Draft202012Validator(whole, format_checker=FormatChecker()).validate(example)
    except Exception as error:
        sys.exit(f"{path}: {error}")
    checked += 1
print(f"a valid OpenAPI {document['openapi']} document; {checked} examples are what their schemas ask for")
