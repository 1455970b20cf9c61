#!/usr/bin/env python3
"""The official `openai` client against `agent serve --http`: completions and chats, whole, streamed, refused.

In: the binary in TANDEM_AGENT; a model it can find (TANDEM_MODEL, or the default one); package `openai`, as pinned in
requirements.txt.
Out: a line for each check; exit code 0 if all hold.
"""

import os
import re
import subprocess
import sys
import tempfile
import typing

import openai
import pydantic

KEY = "test-key"
PROMPT = "def fib(n):\n"


def check(holds, what):
    if not holds:
        raise AssertionError(what)
    print(f"ok: {what}")


def refused(error, work):
    try:
        work()
    except error as refusal:
        return refusal
    raise AssertionError(f"no {error.__name__}")


def checks(client, url):
    models = client.models.list().data
    check(len(models) == 1 and models[0].owned_by == "tandem", "the model is listed")
    model = models[0].id

    whole = client.completions.create(model=model, prompt=PROMPT, max_tokens=12, temperature=0)
    check(whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 12, "a completion")

    chunks = list(
        client.completions.create(
            model=model, prompt=PROMPT, max_tokens=12, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    check(text == whole.choices[0].text and len(chunks) > 3, "a stream of the same text")
    check(chunks[-1].usage.completion_tokens == 12, "the usage comes last")

    seeded = [
        client.completions.create(model=model, prompt=PROMPT, max_tokens=8, n=2, seed=3, logprobs=2, stop=["zzz"])
        for _ in range(2)
    ]
    texts = [[choice.text for choice in answer.choices] for answer in seeded]
    check(texts[0] == texts[1] and len(texts[0]) == 2, "a seed gives the same answers")
    logprobs = seeded[0].choices[0].logprobs
    check("".join(logprobs.tokens) == texts[0][0], "the tokens are the text's")
    check(all(len(top) == 2 for top in logprobs.top_logprobs), "the likeliest tokens of each place")

    wrong = openai.OpenAI(base_url=url, api_key="wrong", max_retries=0)
    refused(openai.AuthenticationError, wrong.models.list)
    refusal = refused(
        openai.BadRequestError, lambda: client.completions.create(model=model, prompt=PROMPT, temperature=2, top_p=0)
    )
    check(refusal.param == "top_p", "a refusal names the parameter")
    refusal = refused(
        openai.BadRequestError, lambda: client.completions.create(model=model, prompt="a b " * 9000, stream=True)
    )
    check(refusal.code == "context_length_exceeded", "a prompt that is too long is refused before the stream")
    refusal = refused(
        openai.BadRequestError,
        lambda: client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]
        ),
    )
    check(refusal.param == "messages" and "image_url" in refusal.message, "an image is refused by its name")


def chat_checks(client):
    model = client.models.list().data[0].id
    question = {"role": "user", "content": "What is the capital of France?"}
    messages = [{"role": "system", "content": "Be brief."}, question]
    asked = {"model": model, "messages": messages, "max_completion_tokens": 24}

    whole = client.chat.completions.create(**asked, temperature=0)
    said = whole.choices[0].message.content
    check(said and whole.choices[0].finish_reason in ("stop", "length"), "a chat")
    chunks = list(
        client.chat.completions.create(**asked, temperature=0, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    check(text == said and len(chunks) > 3, "a stream of the same words")
    check(chunks[0].choices[0].delta.role == "assistant", "who speaks comes first")
    check(chunks[-1].usage.completion_tokens == whole.usage.completion_tokens, "the usage comes last")

    seeded = [
        client.chat.completions.create(**asked, n=2, seed=3, logprobs=True, top_logprobs=2, stop=["zzz"])
        for _ in range(2)
    ]
    texts = [[choice.message.content for choice in answer.choices] for answer in seeded]
    check(texts[0] == texts[1] and len(texts[0]) == 2, "a seed gives the same chats")
    tokens = seeded[0].choices[0].logprobs.content
    said = b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace")
    check(said == texts[0][0], "the tokens are the message's")
    check(all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens), "the likeliest of each place")

    class Weather(pydantic.BaseModel):
        """Tells the weather of a city."""

        city: typing.Annotated[str, pydantic.Field(max_length=16)]
        unit: typing.Literal["C", "F"]

    tools = [openai.pydantic_function_tool(Weather)]
    called = {**asked, "tools": tools, "tool_choice": "required", "seed": 1, "max_completion_tokens": 200}
    answer = client.chat.completions.parse(**called, parallel_tool_calls=False).choices[0]
    check(answer.finish_reason == "tool_calls" and len(answer.message.tool_calls) == 1, "a required tool is called")
    call = answer.message.tool_calls[0].function
    check(isinstance(call.parsed_arguments, Weather), f"its arguments fit: {call.arguments}")
    with client.chat.completions.stream(**called, parallel_tool_calls=False) as stream:
        final = stream.get_final_completion().choices[0]
    check(final.message.tool_calls[0].function.arguments == call.arguments, "a streamed call is the same")
    answered = messages + [
        answer.message.model_dump(exclude_none=True, include={"role", "tool_calls"}),
        {"role": "tool", "tool_call_id": answer.message.tool_calls[0].id, "content": "21 degrees"},
    ]
    talk = {**asked, "messages": answered, "tools": tools, "tool_choice": "none"}
    told = client.chat.completions.create(**talk, temperature=0)
    check(told.choices[0].message.content and not told.choices[0].message.tool_calls, "its answer is talked about")

    class Report(pydantic.BaseModel):
        title: typing.Annotated[str, pydantic.Field(max_length=24)]
        severity: typing.Literal["low", "high"]
        line: typing.Annotated[int, pydantic.Field(ge=1, le=9999)]

    report = {**asked, "max_completion_tokens": 200}
    for seed in range(3):
        parsed = client.chat.completions.parse(**report, response_format=Report, temperature=1, seed=seed).choices[0]
        check(isinstance(parsed.message.parsed, Report), f"an answer fits its schema: {parsed.message.content}")
    short = {**report, "max_completion_tokens": 8}
    free = client.chat.completions.create(**short, response_format={"type": "json_object"})
    check(free.choices[0].message.content.startswith("{"), "an object is one from its first byte")
    wrong = {"name": "x", "schema": {"type": "object", "properties": {"a": {"type": "strin"}}}}
    refusal = refused(
        openai.BadRequestError,
        lambda: client.chat.completions.create(**asked, response_format={"type": "json_schema", "json_schema": wrong}),
    )
    check(refusal.param == "response_format" and "/properties/a" in refusal.message, "a bad schema has a place")


def main():
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TANDEM_DATA_DIR": folder, "TANDEM_API_KEY": KEY}
        env.pop("XDG_RUNTIME_DIR", None)
        command = [os.environ["TANDEM_AGENT"], "serve", "--http", "127.0.0.1:0"]
        server = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        try:
            said = server.stderr.readline()
            address = re.search(r"http://[\d.:]+", said)
            check(address, f"it says where: {said.strip()}")
            url = address.group() + "/v1"
            client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
            checks(client, url)
            chat_checks(client)
            server.terminate()
            check(server.wait(timeout=10) == 0, "a polite kill ends it well")
        finally:
            server.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
