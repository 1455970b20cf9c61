#!/usr/bin/env python3
"""The official `openai` client against `agent serve --http`: whole, streamed, refused.

In: the binary in TANDEM_AGENT; a model it can find (TANDEM_MODEL, or the default one); package `openai`, as pinned in
requirements.txt.
Out: a line for each check; exit code 0 if all hold.
"""

import os
import re
import subprocess
import sys
import tempfile

import openai

KEY = "test-key"
PROMPT = "def fib(n):\n"


def check(holds, what):
    if not holds:
        raise AssertionError(what)
    print(f"ok: {what}")


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

    def refused(error, work):
        try:
            work()
        except error as refusal:
            return refusal
        raise AssertionError(f"no {error.__name__}")

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
    message = [{"role": "user", "content": "hello"}]
    refused(openai.InternalServerError, lambda: client.chat.completions.create(model=model, messages=message))
    check(True, "chat is said not to be there")


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
            checks(openai.OpenAI(base_url=url, api_key=KEY, max_retries=0), url)
            server.terminate()
            check(server.wait(timeout=10) == 0, "a polite kill ends it well")
        finally:
            server.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
