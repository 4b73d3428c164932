"""``far``: a gateway from the terminal."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from farlabs import __version__
from farlabs.aio import DEFAULT_URL
from farlabs.amounts import format_far, parse_far
from farlabs.client import FarLabsClient, Generation
from farlabs.errors import FarLabsError, RateLimitError
from farlabs.models import GenerateAnswer, RequestReceipts
from farlabs.parameters import Message
from farlabs.reading import Place
from farlabs.receipts import Receipt, verify_receipt, verify_receipts

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_PROVEN = 3
EXIT_INTERRUPTED = 130

_SCOPES = ("inference", "account:read", "account:write", "provider", "operator")
_TOO_LONG = 64 * 2**20
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_EXITS = (
    "Exit codes: 0 all is well; 1 it failed; 2 the command is not understood; 3 a receipt proves nothing; "
    "130 interrupted."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, and exit with what came of it."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """The same; gives the exit code."""
    options = _parser().parse_args(arguments)
    client: FarLabsClient | None = None
    try:
        client = FarLabsClient(
            options.url,
            private_key=os.environ.get("WALLET_PRIVATE_KEY") or None,
            api_key=os.environ.get("FAR_API_KEY") or None,
            timeout=options.timeout,
        )
        act: Callable[[FarLabsClient, argparse.Namespace], int] = options.act
        code = act(client, options)
        sys.stdout.flush()
        return code
    except FarLabsError as error:
        return _failed(error, as_json=options.json)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read it has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    finally:
        if client is not None:
            client.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="far",
        description="Language models on pooled GPUs, paid by the token.",
        epilog="FAR_API_KEY or WALLET_PRIVATE_KEY say who asks, FAR_GATEWAY where. Keys are no options, as others can "
        f"see the options of a command. {_EXITS}",
    )
    parser.add_argument("--version", action="version", version=f"far {__version__}")
    everywhere = argparse.ArgumentParser(add_help=False)
    url = os.environ.get("FAR_GATEWAY") or DEFAULT_URL
    everywhere.add_argument("--url", default=url, help=f"the gateway (FAR_GATEWAY; {DEFAULT_URL})")
    everywhere.add_argument("--json", action="store_true", help="one JSON object for each thing, for programs")
    everywhere.add_argument("--timeout", type=_seconds, default=60.0, help="seconds to wait for something to come (60)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser)

    def command(name: str, act: Callable[[FarLabsClient, argparse.Namespace], int], help: str) -> Any:
        added = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", parents=[everywhere])
        added.set_defaults(act=act)
        return added

    def sampling(added: Any) -> None:
        added.add_argument("--model", "-m", help="which (the only one that is on sale)")
        added.add_argument("--max-tokens", type=int, metavar="N", help="at most so many (the gateway's default)")
        added.add_argument("--temperature", "-t", type=float, metavar="T", help="0 to 2 (0: always the same)")
        added.add_argument("--seed", type=int, help="the same seed gives the same text")
        added.add_argument("--tier", help="standard, premium or enterprise (your own)")

    added = command("chat", _chat, "talk with a model; one line is one message")
    sampling(added)
    added.add_argument("--system", help="what the model is told before")
    added = command("generate", _generate, "generate text; without a prompt it is read from standard input")
    added.add_argument("prompt", nargs="?")
    sampling(added)
    added.add_argument("--raw", action="store_true", help="the prompt as it is, without the model's chat template")
    command("models", _models, "what is on sale")
    added = command("quote", _quote, "what a request would cost at most")
    added.add_argument("prompt")
    added.add_argument("--model", "-m")
    added.add_argument("--max-tokens", type=int, metavar="N")
    command("balance", _balance, "your prepaid money")
    added = command("usage", _usage, "what you have used, by day, model and API key")
    added.add_argument("--from", dest="first", metavar="YYYY-MM-DD", help="a day of UTC (30 days ago)")
    added.add_argument("--to", dest="last", metavar="YYYY-MM-DD", help="another, included (today)")
    added = command("request", _request, "what became of a request of yours")
    added.add_argument("id")
    added = command("verify", _verify, "check receipts: of a request of yours, or in a file, which asks nobody")
    added.add_argument("what", help="the id of a request, a file with receipts, or - for standard input")

    keys = commands.add_parser("keys", help="your API keys", description="Your API keys.")
    keys_commands = keys.add_subparsers(required=True, metavar="COMMAND")
    added = keys_commands.add_parser("list", help="all of them", parents=[everywhere])
    added.set_defaults(act=_keys)
    added = keys_commands.add_parser("create", help="a new one, which is shown once", parents=[everywhere])
    added.add_argument("name")
    added.add_argument("--scope", action="append", choices=_SCOPES, help="may be given several times (inference)")
    added.add_argument("--per-day", type=_far, metavar="FAR", help="at most so much is spent with it in a day")
    added.set_defaults(act=_create_key)
    added = keys_commands.add_parser("revoke", help="it counts no more", parents=[everywhere])
    added.add_argument("id")
    added.set_defaults(act=_revoke_key)
    return parser


def _far(text: str) -> int:
    try:
        return parse_far(text)
    except FarLabsError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError("it is a number of seconds, more than 0")
    return seconds


# ---- generating


def _generate(client: FarLabsClient, options: argparse.Namespace) -> int:
    prompt = sys.stdin.read() if options.prompt is None else options.prompt
    generation = client.generate(
        _model(client, options), prompt, options.max_tokens, options.temperature, raw=options.raw, **_more(options)
    )
    answer = _tell(generation, as_json=options.json)
    if not options.json:
        _note(_bill(answer))
    return 0


def _chat(client: FarLabsClient, options: argparse.Namespace) -> int:
    model = _model(client, options)
    said: list[Message] = [{"role": "system", "content": options.system}] if options.system else []
    if sys.stdin.isatty():
        _note(f"{model}. An empty line or Ctrl-D ends it.")
    while line := _line():
        said.append({"role": "user", "content": line})
        try:
            answer = _tell(
                client.chat(model, said, options.max_tokens, options.temperature, **_more(options)),
                as_json=options.json,
            )
        except FarLabsError as error:
            if not sys.stdin.isatty():
                raise
            _failed(error, as_json=options.json)
            said.pop()
            continue
        said.append({"role": "assistant", "content": answer.text})
        if not options.json:
            _note(_bill(answer))
    return 0


def _line() -> str:
    """What is said next; nothing at the end."""
    if sys.stdin.isatty():
        sys.stderr.write("> ")
        sys.stderr.flush()
    return sys.stdin.readline().rstrip("\r\n")


def _tell(generation: Generation, *, as_json: bool) -> GenerateAnswer:
    """Write an answer as it comes, or as one object."""
    with generation:
        if not as_json:
            for piece in generation:
                sys.stdout.write(_harmless(piece) if sys.stdout.isatty() else piece)
                sys.stdout.flush()
            sys.stdout.write("\n")
        answer = generation.result()
    if as_json:
        _print(answer)
    return answer


def _more(options: argparse.Namespace) -> Any:
    given = {"seed": options.seed, "tier": options.tier, "on_wait": None if options.json else _waits}
    return {name: value for name, value in given.items() if value is not None}


def _waits(place: Place) -> None:
    """Say where a request stands."""
    where = f"place {place.position} in the queue" if place.position else "the nodes have no room yet"
    _note(f"waiting: {where}" + (f" ({place.obstacle})" if place.obstacle else ""))


def _model(client: FarLabsClient, options: argparse.Namespace) -> str:
    if options.model is not None:
        return str(options.model)
    found = client.models()
    if len(found) != 1:
        names = ", ".join(model.id for model in found) or "none"
        raise FarLabsError(f"say which with --model: {names}", code="which_model")
    return found[0].id


def _bill(answer: GenerateAnswer) -> str:
    nodes = len({node.node_id for node in answer.nodes_used})
    return (
        f"{answer.prompt_tokens} + {answer.completion_tokens} tokens · {format_far(answer.cost_units)} FAR · "
        f"{answer.latency_ms} ms · {nodes} {'node' if nodes == 1 else 'nodes'} · {answer.request_id}"
    )


# ---- looking


def _models(client: FarLabsClient, options: argparse.Namespace) -> int:
    found = client.models()
    if options.json:
        return _print(*found)
    rows = [
        (
            model.id,
            "yes" if model.available else f"no: {model.reason}",
            str(model.active_nodes),
            format_far(model.prompt_price_units),
            format_far(model.completion_price_units),
            str(model.context_length),
        )
        for model in found
    ]
    return _table(("model", "available", "nodes", "FAR/prompt token", "FAR/token", "context"), rows)


def _quote(client: FarLabsClient, options: argparse.Namespace) -> int:
    quote = client.quote(_model(client, options), options.prompt, options.max_tokens)
    if options.json:
        return _print(quote)
    rows = [
        ("at most", f"{format_far(quote.max_cost_units)} FAR"),
        ("prompt", f"{quote.prompt_tokens} tokens, {format_far(quote.prompt_price_units)} FAR each"),
        ("answer", f"{quote.max_tokens} tokens, {format_far(quote.completion_price_units)} FAR each"),
        ("tier", quote.tier),
        ("until", quote.expires_at.isoformat()),
    ]
    return _table(None, rows)


def _balance(client: FarLabsClient, options: argparse.Namespace) -> int:
    balance = client.balance()
    if options.json:
        return _print(balance)
    rows = [
        ("wallet", balance.wallet_address),
        ("available", f"{format_far(balance.available_units)} FAR"),
        ("held", f"{format_far(balance.held_units)} FAR"),
        ("deposited", f"{format_far(balance.deposited_units)} FAR"),
        ("credit", f"{format_far(balance.credit_units)} FAR"),
    ]
    return _table(None, rows)


def _usage(client: FarLabsClient, options: argparse.Namespace) -> int:
    cursor: str | None = None
    rows: list[tuple[str, ...]] = []
    while True:
        usage = client.usage(options.first, options.last, cursor=cursor)
        if options.json:
            _print(*usage.usage)
        for line in usage.usage:
            counts = (str(line.requests), str(line.prompt_tokens), str(line.completion_tokens))
            rows.append((str(line.date), line.model_id, *counts, format_far(line.cost_units)))
        cursor = usage.next_cursor
        if cursor is None:
            break
    if options.json:
        return 0
    total = usage.total
    counts = (str(total.requests), str(total.prompt_tokens), str(total.completion_tokens))
    rows.append(("all", "", *counts, format_far(total.cost_units)))
    return _table(("day", "model", "requests", "prompt tokens", "tokens", "FAR"), rows)


def _request(client: FarLabsClient, options: argparse.Namespace) -> int:
    state = client.request(options.id)
    if options.json:
        return _print(state)
    cost = "not known yet" if state.cost_units is None else f"{format_far(state.cost_units)} FAR"
    rows = [
        ("request", state.request_id),
        ("model", state.model_id),
        ("status", state.status + (f" ({state.error_code})" if state.error_code else "")),
        ("tokens", f"{state.prompt_tokens} + {state.completion_tokens}"),
        ("cost", cost),
        ("paid by", f"{state.payment}, {state.settlement.status}"),
        *(("node", f"{node.node_id}, {format_far(node.paid_units)} FAR") for node in state.nodes_used),
    ]
    return _table(None, rows)


# ---- keys


def _keys(client: FarLabsClient, options: argparse.Namespace) -> int:
    found = client.api_keys()
    if options.json:
        return _print(*found)
    rows = [
        (
            key.id,
            key.name,
            f"{key.prefix}…",
            " ".join(key.scopes),
            key.last_used_at.date().isoformat() if key.last_used_at else "never",
            "revoked" if key.revoked_at else "counts",
        )
        for key in found
    ]
    return _table(("id", "name", "key", "scopes", "last used", "state"), rows)


def _create_key(client: FarLabsClient, options: argparse.Namespace) -> int:
    limits = None if options.per_day is None else {"units_per_day": options.per_day}
    made = client.create_api_key(options.name, scopes=options.scope, limits=limits)  # type: ignore[arg-type]
    if options.json:
        return _print(made)
    sys.stdout.write(f"{made.key}\n")
    _note(f"{made.id}: this is shown once. Give it to programs as FAR_API_KEY.")
    return 0


def _revoke_key(client: FarLabsClient, options: argparse.Namespace) -> int:
    client.revoke_api_key(options.id)
    if not options.json:
        _note(f"{options.id} counts no more.")
    return 0


# ---- receipts


def _verify(client: FarLabsClient, options: argparse.Namespace) -> int:
    try:
        if options.what.startswith("req_") and not os.path.exists(options.what):
            told = client.receipts(options.what)
            receipts: Iterable[Receipt] = verify_receipts(told).receipts
        else:
            receipts = _receipts_in(_read(options.what))
    except FarLabsError as error:
        if error.code != "receipt_invalid":
            raise
        _failed(error, as_json=options.json)
        return EXIT_NOT_PROVEN
    if options.json:
        for receipt in receipts:
            sys.stdout.write(json.dumps(vars(receipt)) + "\n")
        return 0
    rows = [
        (
            receipt.peer_id,
            f"{receipt.first_block} to {receipt.end_block - 1}",
            str(receipt.positions),
            str(receipt.token_layers),
            receipt.wallet,
        )
        for receipt in receipts
    ]
    return _table(("node", "blocks", "positions", "token-layers", "wallet"), rows)


def _receipts_in(text: str) -> list[Receipt]:
    """Of one receipt, of one in each line, or of what the gateway tells of a request."""
    try:
        told = RequestReceipts.model_validate_json(text)
    except ValueError:
        pass
    else:
        return list(verify_receipts(told).receipts)
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        return [verify_receipt(line) for line in lines or [text]]
    except FarLabsError:
        if len(lines) < 2:
            raise
        return [verify_receipt(text)]  # one that is written over several lines


def _read(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read(_TOO_LONG)
        with open(path, encoding="utf-8") as file:
            return file.read(_TOO_LONG)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise FarLabsError(f"{path} cannot be read: {reason}", code="no_file") from None


# ---- telling


def _print(*things: BaseModel) -> int:
    for thing in things:
        sys.stdout.write(thing.model_dump_json(by_alias=True) + "\n")
    return 0


def _table(names: tuple[str, ...] | None, rows: Sequence[tuple[str, ...]]) -> int:
    """Columns as wide as what is in them."""
    lines = [tuple(_harmless(cell) for cell in row) for row in ([names] if names else []) + list(rows)]
    if not lines:
        return 0
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    for row in lines:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")
    return 0


def _harmless(text: str) -> str:
    """Without what a terminal would obey. Names and texts come from strangers."""
    return _OBEYED.sub("\ufffd", text)


def _note(text: str) -> None:
    sys.stderr.write(_harmless(text) + "\n")
    sys.stderr.flush()


def _failed(error: FarLabsError, *, as_json: bool) -> int:
    # What the options of a client are called helps nobody here.
    message = "set FAR_API_KEY or WALLET_PRIVATE_KEY" if error.code == "no_credential" else error.message
    if as_json:
        facts = {"code": error.code, "message": message, "status": error.status, "request_id": error.request_id}
        sys.stderr.write(json.dumps({"error": facts}) + "\n")
    else:
        again = ""
        if isinstance(error, RateLimitError) and error.retry_after is not None:
            again = f" (again in {error.retry_after:.0f} s)"
        _note(f"far: {message}{again}")
    return EXIT_FAILED


if __name__ == "__main__":
    main()
