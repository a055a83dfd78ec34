"""The library a device, an enrolment station or an operator's script imports.

Rules:

1. Each API is written once, as generators that yield requests and receive answers
   (`exchange.py`). `Session` and `AsyncSession` (`session.py`) drive the same generators, one by
   blocking and one by awaiting; nothing else in this package does I/O.
2. Every class here speaks a public protocol and works against the real service too: EZCA, Azure
   Resource Manager, Azure DPS, Azure IoT Hub. Only `authorities.py` and `events.py` are for
   Muster alone.
3. A failure that can be explained is a `ServiceError`, a `Problem` whose text is one line.

    with Session(credential, server_ca=Path("var/tls/ca.pem")) as session:
        authorities = session.call(Ezca("https://localhost:8443").available_authorities())
"""
