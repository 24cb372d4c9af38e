"""A typed service and its client, which may as well be two programs."""

import anyio

import alpc_async as alpc


class Greeter(alpc.Interface, uuid="9c1f7f5e-3f0b-4f0e-8a57-6d1d5a1f2b90", version=(1, 0)):
    """The contract, which both sides import."""

    async def greet(self, name: str) -> str: ...


class GreeterServer(Greeter):
    """The implementation."""

    async def greet(self, name: str) -> str:
        """Greet by name, and say what the kernel knows about the caller."""
        return f"hello {name}, you are uid {alpc.current_call().peer.uid}"


async def main() -> None:
    """Serve, and be a client."""
    async with alpc.serve("demo.greeter", GreeterServer()), alpc.connect("demo.greeter", Greeter) as greeter:
        print(await greeter.greet("world"))


if __name__ == "__main__":
    anyio.run(main)
