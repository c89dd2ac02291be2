"""An application that creates children in every possible way, for tests; they report their attributes."""

# What a child does, in a module of its own, so that a fresh interpreter finds it too.
TALE = """
import asyncio, json, logging, os, signal, time

def tell(way):
    asyncio.run(asyncio.sleep(0))
    caught = [number for number in signal.valid_signals() if callable(signal.getsignal(number))]
    told = {
        "pid": os.getpid(),
        "caught": [number for number in caught if signal.getsignal(number) is not signal.default_int_handler],
        "wakeup": signal.set_wakeup_fd(-1),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }
    logging.getLogger("tale").warning("logged by way of %s", way)
    print("printed by way of", way, flush=True)
    new = f"{way}.{os.getpid()}"  # several workers may do so at once
    with open(new, "w") as file:
        json.dump(told, file)
    os.rename(new, way)
    time.sleep(3600)
"""

# Makes them when it starts, from a thread if the ways say so, and does what its clients say.
APPLICATION = """
import asyncio, multiprocessing, os, pty, signal, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tale import tell
from tamed import Application, Service, StreamServer

def fork(way):
    if way in multiprocessing.get_all_start_methods():
        process = multiprocessing.get_context(way).Process(target=tell, args=(way,), daemon=True)
        process.start()
        return process
    if way == "detached":  # in a session of its own, and nobody's child
        if os.fork():
            return os.wait()
        os.setsid()
        if os.fork():
            os._exit(0)
    elif (pty.fork()[0] if way == "pty.fork" else os.fork()):
        return None
    elif way == "obstinate":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        tell(way)
    finally:
        os._exit(9)

class Forker(Service):
    async def start(self):
        with open("ways") as file:
            ways = file.read().split()
        for way in ways:
            if "thread" in ways and way != "thread":
                processes[way] = await asyncio.to_thread(fork, way)
            elif way != "thread":
                processes[way] = fork(way)

async def serve(reader, writer):
    writer.write(b"%d\\n" % os.getpid())
    match (await reader.readline()).decode().split():
        case ["terminate", way]:
            processes[way].terminate()
            await asyncio.to_thread(processes[way].join)
            writer.write(b"%d" % processes[way].exitcode)
        case ["run", *command]:
            process = await asyncio.create_subprocess_exec(*command)
            writer.write(b"%d" % process.pid)
        case ["exit"]:
            os._exit(3)

processes = {}
application = Application("app", StreamServer("127.0.0.1:0", serve), Forker())
"""
