#!/usr/bin/python3
"""Renders chat templates with Jinja2 as transformers sets it up, for tests/tokenizer/chat_golden_test.cpp.

usage: make_chat_goldens.py ASSETS > chat_goldens.json    (ASSETS: the folder of tools/fetch_test_assets.py)
Debian's python3-jinja2 suffices. The templates themselves are not copied: the test finds them in ASSETS.
"""
import datetime
import hashlib
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = datetime.datetime(2026, 3, 7, 15, 4, 5)

# The families that spear runs, by the name of their template.
TEMPLATES = [
    "Qwen-QwQ-32B", "Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "Qwen3-Coder",
    "HuggingFaceTB-SmolLM3-3B", "meta-llama-Llama-3.1-8B-Instruct", "meta-llama-Llama-3.2-3B-Instruct",
    "meta-llama-Llama-3.3-70B-Instruct", "mistralai-Mistral-Nemo-Instruct-2407",
    "Mistral-Small-3.2-24B-Instruct-2506", "unsloth-mistral-Devstral-Small-2507",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "fireworks-ai-llama-3-firefunction-v2",
    "google-gemma-2-2b-it", "microsoft-Phi-3.5-mini-instruct",
]

TOOL = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather at a place, \"now\" & later <b>",
    "parameters": {"type": "object", "required": ["place"], "properties": {
        "place": {"type": "string", "description": "Zürich, 東京, …"},
        "days": {"type": "integer", "enum": [1, 2, 3]},
        "units": {"type": ["string", "null"]}}}}}
CALL = {"id": "abcdef123", "type": "function",
        "function": {"name": "get_weather", "arguments": {"place": "Zürich", "days": 2, "exact": 0.5}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


SYSTEM = {"role": "system", "content": "  You are terse.\n"}
CONVERSATIONS = {
    "one turn": {"messages": [user("Hello")], "add_generation_prompt": True},
    "no prompt": {"messages": [user("Hello"), assistant("Hi.")]},
    "system": {"messages": [SYSTEM, user("What is 2+2?")], "add_generation_prompt": True},
    "many turns": {"messages": [SYSTEM, user("a\n\nb"), assistant(" <|im_end|> c "), user("{{ d }}"),
                                assistant("é 漢字 🙂"), user("last  ")], "add_generation_prompt": True},
    "thinking": {"messages": [user("x"), assistant("<think>\nhm\n</think>\n\nyes"), user("y"),
                              assistant("<think>no</think>z", reasoning_content="because")],
                 "add_generation_prompt": True, "enable_thinking": False},
    "tools": {"messages": [SYSTEM, user("Weather?")], "tools": [TOOL, TOOL], "add_generation_prompt": True},
    "tool call": {"messages": [user("Weather?"), assistant("", tool_calls=[CALL]),
                               {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123",
                                "content": "{\"sun\": true}"}, assistant("Sunny."), user("Thanks")],
                  "tools": [TOOL], "add_generation_prompt": True},
    "wrong order": {"messages": [assistant("I begin"), user("no"), user("twice")]},
    "empty": {"messages": []},
    "date given": {"messages": [user("Which day?")], "date_string": "01 Jan 2025", "add_generation_prompt": True},
}


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: NOW.strftime(form)
    return env


def render(text, variables):
    context = {"tools": None, "documents": None, "add_generation_prompt": False, "bos_token": "<s>",
               "eos_token": "</s>", **variables}
    try:
        return {"text": environment().from_string(text).render(**context)}
    except Exception as error:  # any: the test wants an error too
        return {"error": type(error).__name__ + ": " + str(error)}


def digest(result):
    """Of a published template only the hash is kept: its text is its authors'."""
    if "text" in result:
        return {"sha256": hashlib.sha256(result["text"].encode("utf-8")).hexdigest()}
    return result


def main():
    folder = pathlib.Path(sys.argv[1]) / "templates"
    if len(sys.argv) > 2:
        names = sys.argv[2:]
    else:
        names = TEMPLATES
    goldens = {"conversations": CONVERSATIONS, "templates": {}, "snippets": []}
    for name in names:
        text = (folder / (name + ".jinja")).read_text(encoding="utf-8")
        goldens["templates"][name] = {key: digest(render(text, value)) for key, value in CONVERSATIONS.items()}
    snippets = pathlib.Path(__file__).with_name("chat_snippets.txt").read_text(encoding="utf-8")
    for snippet in snippets.split("\n---\n"):
        goldens["snippets"].append({"template": snippet, **render(snippet, {"x": 7, "messages": [user("u")],
                                    "d": {"b": 1, "a": [1, 2.5, None, True, "ü\"'"]}, "s": " Ab c-d éß "})})
    json.dump(goldens, sys.stdout, ensure_ascii=False, indent=0)
    print()


main()
