#!/usr/bin/env python3
"""Asks a running `spear serve` with the unmodified `openai` package: sync, async, streams, tools, log-probabilities, and
errors as their typed exceptions. Not part of the tests that run everywhere: it needs that package.

usage: openai_client.py URL [MODEL]          URL as http://127.0.0.1:8000/v1; OPENAI_API_KEY where the server wants one
"""
import asyncio
import os
import sys

import openai

KEY = os.environ.get("OPENAI_API_KEY", "none")
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
    "additionalProperties": False}}}]
MESSAGES = [{"role": "user", "content": "Say hello in one short sentence."}]


def check(condition, what):
    print(f"{'ok' if condition else 'WRONG'}  {what}")
    return 0 if condition else 1


def raises(kind, call):
    try:
        call()
    except kind as error:
        return bool(error.body is None or error.body.get("message"))
    except Exception as error:  # any other kind is the finding
        print(f"    {type(error).__name__}: {error}")
    return False


def sync_checks(client, model):
    wrong = 0
    listed = client.models.list().data
    wrong += check(model in [entry.id for entry in listed], "models.list")
    wrong += check(client.models.retrieve(model).id == model, "models.retrieve")
    whole = client.chat.completions.create(model=model, messages=MESSAGES, temperature=0, max_tokens=24)
    wrong += check(bool(whole.choices[0].message.content) and whole.usage.completion_tokens <= 24, "chat")
    text, usage = "", None
    for chunk in client.chat.completions.create(model=model, messages=MESSAGES, temperature=0, max_tokens=24,
                                                stream=True, stream_options={"include_usage": True}):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        usage = chunk.usage or usage
    wrong += check(text == whole.choices[0].message.content, "a stream gives the same text")
    wrong += check(usage.completion_tokens == whole.usage.completion_tokens, "a stream gives the same usage")
    scored = client.chat.completions.create(model=model, messages=MESSAGES, temperature=0, max_tokens=4, logprobs=True,
                                            top_logprobs=3)
    entries = scored.choices[0].logprobs.content
    wrong += check(entries and all(len(entry.top_logprobs) == 3 and entry.logprob <= 0 for entry in entries),
                   "logprobs")
    several = client.completions.create(model=model, prompt=["One, two,", "Red, green,"], max_tokens=4, n=2,
                                        temperature=1, seed=3)
    wrong += check([choice.index for choice in several.choices] == [0, 1, 2, 3], "completions: batch and n")
    echoed = client.completions.create(model=model, prompt="One, two,", max_tokens=0, echo=True, logprobs=1)
    wrong += check(echoed.choices[0].text == "One, two," and echoed.choices[0].logprobs.token_logprobs[0] is None,
                   "completions: echo with logprobs")
    called = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Weather in Rome?"}],
                                            tools=TOOLS, tool_choice="required", temperature=0, max_tokens=128)
    call = (called.choices[0].message.tool_calls or [None])[0]
    wrong += check(call is not None and call.function.name == "get_weather", "a required tool is called")
    stream = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=200, stream=True)
    next(iter(stream))
    stream.close()
    wrong += check(True, "a stream is closed early")
    raw = client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES, max_tokens=1,
                                                           extra_headers={"X-Request-Id": "smoke-1"})
    wrong += check(raw.headers.get("x-request-id") == "smoke-1", "the request's id comes back")
    return wrong


def error_checks(client, model, url):
    def create(**fields):
        return lambda: client.chat.completions.create(**dict(dict(model=model, messages=MESSAGES), **fields))
    wrong = check(raises(openai.NotFoundError, create(model="no-such-model")), "NotFoundError")
    wrong += check(raises(openai.BadRequestError, create(temperature=-1)), "BadRequestError: temperature")
    wrong += check(raises(openai.BadRequestError, create(max_tokens=10**9)), "BadRequestError: context")
    wrong += check(raises(openai.BadRequestError, create(messages=[])), "BadRequestError: messages")
    stranger = openai.OpenAI(base_url=url, api_key="another key", max_retries=0)
    wrong += check(KEY == "none" or raises(openai.AuthenticationError, stranger.models.list), "AuthenticationError")
    late = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=0.05)
    wrong += check(raises(openai.APITimeoutError, lambda: late.completions.create(
        model=model, prompt="On and on", max_tokens=2000, extra_body={"ignore_eos": True})), "APITimeoutError")
    return wrong


async def async_checks(url, model):
    client = openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0)
    answers = await asyncio.gather(*(client.completions.create(model=model, prompt=f"Number {i} is", max_tokens=8,
                                                               temperature=0) for i in range(8)))
    text = ""
    async for chunk in await client.completions.create(model=model, prompt="Number 0 is", max_tokens=8, temperature=0,
                                                       stream=True):
        text += chunk.choices[0].text
    await client.close()
    return check(len(answers) == 8 and all(answer.choices for answer in answers), "eight at once, async") + \
        check(text == answers[0].choices[0].text, "an async stream gives the same text")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    url = sys.argv[1]
    client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
    model = sys.argv[2] if len(sys.argv) > 2 else client.models.list().data[0].id
    wrong = sync_checks(client, model) + error_checks(client, model, url) + asyncio.run(async_checks(url, model))
    print(f"openai {openai.__version__}: {wrong} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
