"""If the operating system refuses the segment at the first use of a framework's backend, no page fails.

Each refusal is the kernel's own: a limit, a full or forbidden /dev/shm, a filter of system calls.
"""

import pytest

from tests import machine
from tests.cachee_shm.processes import child

pytestmark = pytest.mark.needs("frameworks")

FRAMEWORKS = """
import asyncio, ctypes, logging, resource, struct, threading
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
# What a framework imports only as it is used is imported before anything is refused: that is not our affair.
run = loop.run_until_complete
config = arguments['wanted']
made = []
def make(*_):
    made.append(1)
    return 'made'
async def amake(*_):
    return make()

def of_backing():
    from cachee_shm.backing import Backing
    held = Backing('backing', config)
    return lambda: held.cache.get_or_load('k', make), held.health
def of_django():
    import django
    from django.conf import settings
    ours = {'BACKEND': 'cachee_shm.django.CacheeCache', 'LOCATION': 'django', 'OPTIONS': {'config': config}}
    settings.configure(CACHES={'default': ours}, DATABASES={}, USE_TZ=True)
    django.setup()
    from django.core.cache import cache, caches
    caches['default']  # imports the backend
    def use():
        cache.set('other', [1])
        cache.add('lock', 1)
        return cache.get_or_set('k', make)
    return use, lambda: cache.health()
def of_flask():
    import flask, flask_caching
    app = flask.Flask('shop')
    app.config.update(CACHE_TYPE='cachee_shm.flask.CacheeCache', CACHE_CACHEE_CONFIG=config)
    app.config.update(CACHE_CACHEE_NAMESPACE='flask')
    cache = flask_caching.Cache(app)
    app.route('/')(cache.cached(60)(make))
    app.test_client().get('/warm')  # imports what answers need
    def use():
        answer = app.test_client().get('/')
        assert answer.status_code == 200
        return answer.text
    return use, lambda: app.extensions['cache'][cache].health()
def of_cachelib():
    from cachee_shm.cachelib import CacheeCache
    cache = CacheeCache(namespace='cachelib', config=config)
    def use():
        cache.inc('n')
        found = cache.get('k') or make()
        cache.set('k', found)
        return found
    return use, cache.health
def of_dogpile():
    from dogpile.cache import make_region
    region = make_region().configure('cachee_shm', arguments={'namespace': 'dogpile', 'config': config})
    return lambda: region.get_or_create('k', make), region.backend.health
def of_aiocache():
    import aiocache
    from cachee_shm.aiocache import CacheeCache
    cached = aiocache.cached_stampede(cache=CacheeCache, segment='aiocache', config=config, lease=60)(amake)
    async def use():
        await cached.cache.increment('n')
        return await cached()
    return lambda: run(use()), cached.cache.health
def of_cashews():
    import cachee_shm.cashews
    from cashews import Cache
    cache = Cache()
    cache.setup('cachee://', namespace='cashews', config=config)
    cached = cache(ttl=60, key='k', lock=True)(amake)
    run(cache.ping())  # makes the backend
    backend = cache._get_backend('k')
    return lambda: run(cached()), backend.health
def of_litestar():
    from cachee_shm.litestar import CacheeStore
    store = CacheeStore('pages', segment='litestar', config=config)
    async def use():
        found = await store.get('k', renew_for=5)
        await store.set('k', found or make(), expires_in=60)
        return (found or b'made').decode()
    return lambda: run(use()), store.health
def of_starlette():
    from types import SimpleNamespace
    from starlette.applications import Starlette
    from cachee_shm import starlette
    app = Starlette(lifespan=starlette.lifespan('starlette', config=config))
    spans = app.router.lifespan_context(app)
    request = SimpleNamespace(app=app)
    begun = []
    def use():
        if not begun:
            begun.append(run(spans.__aenter__()))
        return run(starlette.cache_of(request).aget_or_load('k', amake))
    def health():
        assert starlette.health(request).status_code in (200, 503)
        return starlette._backing_of(request).health()
    return use, health
def of_jinja():
    import jinja2
    from cachee_shm.backing import Backing
    environment = jinja2.Environment(extensions=['cachee_shm.jinja.Fragments'])
    fragments = next(iter(environment.extensions.values()))
    fragments._backing = Backing('jinja', config)
    environment.from_string('{{ 1 }}').render()
    page = environment.from_string('{% cache 60, 1 %}{{ make() }}{% endcache %}', {'make': make})
    return page.render, fragments.health
def of_celery():
    from celery import Celery
    from cachee_shm.celery import cached_task
    app = Celery('tasks')
    app.conf.task_always_eager = True
    app.task(make, name='warm').apply()
    def report():
        return make()
    task = cached_task(app, ttl=60, key='k', namespace='celery', config=config)(report)
    return lambda: task.apply().get(), task.health

lines = []
class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
logging.getLogger('cachee_shm').addHandler(Lines())
"""

USE = """
frameworks = {name: globals()[name]() for name in list(globals()) if name.startswith('of_')}
import cachee_shm.config, cachee_shm.timeouts
def first_uses():
    for name, (use, health) in frameworks.items():
        lines.clear(), made.clear()
        assert [use(), use()] == ['made', 'made'], name
        assert len(made) == 2, (name, made)
        assert not health().ok and arguments['words'] in health().error, (name, health())
        assert len(lines) == 1 and 'cannot be attached' in lines[0], (name, lines)
refused(first_uses)
lines.clear()
for name, (use, health) in frameworks.items():
    end = time.monotonic() + 60
    while not health().ok:
        assert time.monotonic() < end, (name, health())
        time.sleep(0.01)
    use(), made.clear()
    assert use() == 'made' and not made, name
assert len(lines) == len(frameworks) and all('attached at last' in line for line in lines), lines
say('good', len(frameworks))
"""

# Each runs its argument while the kernel refuses.
DESCRIPTORS = """
def refused(work):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    work()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
"""

ROOM = """
def refused(work):
    work()
    assert not os.system('mount -o remount,size=512m /dev/shm')
"""

RIGHTS = """
def refused(work):
    os.chmod('/dev/shm', 0o755)
    os.seteuid(65534)
    work()
    os.seteuid(0)
    os.chmod('/dev/shm', 0o1777)
    os.seteuid(65534)
"""

# struct sock_filter: load the number of the system call; if it opens a file, the errno; else allow it.
FILTER = """
OPENS = {'x86_64': (2, 257, 319), 'aarch64': (56, 279)}[os.uname().machine]
def refused(work):
    ops = [(0x20, 0, 0, 0)]
    for at, number in enumerate(OPENS):
        ops.append((0x15, len(OPENS) - at, 0, number))
    ops += [(0x06, 0, 0, 0x7fff0000), (0x06, 0, 0, 0x00050000 | 23)]  # ENFILE
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *op) for op in ops))
    program = struct.pack('HxxxxxxP', len(ops), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    failed = []
    def filtered():
        if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
            say('no filters')
            return
        try:
            work()
        except BaseException as error:
            failed.append(error)
            raise
    thread = threading.Thread(target=filtered)
    thread.start()
    thread.join()
    assert not failed
"""


def good_in(code, config, words, under=()):
    config["defaults"] = {"memory": "2MiB"}
    with child(FRAMEWORKS + code, under=under, wanted=config, words=words) as one:
        said = one.end()
    if said[0] == "no filters":
        machine.skip("filters of system calls", "this sandbox refuses them")
    assert said == ["good 11"]


def with_memory(options):
    machine.require("mount namespaces")
    return ("unshare", "-m", "sh", "-c", f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$0" "$@"')


def test_a_first_use_without_descriptors_in_the_process_misses_and_works_later(config):
    good_in(DESCRIPTORS + USE, config, "as many files open as it may. Nothing was attached. See what leaves")


def test_a_first_use_without_descriptors_on_the_machine_misses_and_works_later(config):
    """A thread has such a filter for itself."""
    good_in(FILTER + USE, config, "this machine has as many files open")


def test_a_first_use_without_room_in_shared_memory_misses_and_works_later(config):
    good_in(ROOM + USE, config, "not enough shared memory", with_memory("size=1m"))


def test_a_first_use_without_room_for_a_file_misses_and_works_later(config):
    room = ROOM.replace("size=512m", "nr_inodes=1000")
    good_in(room + USE, config, "no room for another file", with_memory("nr_inodes=1"))


@pytest.mark.needs("other users")
def test_a_first_use_without_the_right_to_shared_memory_misses_and_works_later(config):
    good_in(RIGHTS + USE, config, "Permission denied", with_memory("mode=755"))


def test_a_first_use_that_cannot_read_the_configuration_misses_and_works_later(config, tmp_path):
    """Nor to import what reads it."""
    path = tmp_path / "cachee.toml"
    path.write_text(f'[host]\nname = "{config["host"]["name"]}"\n[namespaces.shop]\nmemory = "4MiB"\n')
    code = (
        DESCRIPTORS
        + """
from cachee_shm.backing import Backing
import logging, cachee_shm.loading
assert 'cachee_shm.config' not in sys.modules
held = Backing('shop', arguments['path'])
def first_use():
    assert held.cache.get_or_load('k', make) == 'made' and held.cache.get('k') is None
    assert 'as many files open as it may' in held.health().error, held.health()
    assert len(lines) == 1
refused(first_use)
while not held.health().ok: time.sleep(0.01)
assert held.cache.set('k', 1) and held.cache.get('k') == 1
say('good')
"""
    )
    with child(FRAMEWORKS + code, wanted=config, path=str(path)) as one:
        assert one.end() == ["good"]
