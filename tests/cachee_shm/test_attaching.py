"""What `attach()` says where a limit of the process is in its way."""

from cachee_shm.segment import file_of, segment_path
from tests.cachee_shm.processes import child


def test_a_limit_on_address_space_is_said_and_leaves_no_file(config):
    code = """
import cachee_shm.config, resource
from cachee_shm.errors import ProcessLimit
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 20), -1))
try: cachee_shm.attach(config=arguments['wanted'])
except ProcessLimit as error: say('ulimit -v' in str(error))
say(os.path.exists(arguments['file']))
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
say(cachee_shm.attach(config=arguments['wanted']).set('a', 1))
"""
    with child(code, wanted=config, file=file_of(segment_path(config["host"]["name"], "shop"))) as limited:
        assert limited.end() == ["True", "False", "True"]


def test_a_limit_on_open_files_is_said_too_where_the_reader_of_the_configuration_was_not_imported_yet(
    config, tmp_path
):
    code = """
import resource
from cachee_shm.errors import ConfigError, ProcessLimit
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
for wanted in (arguments['wanted'], arguments['path']):
    try: cachee_shm.attach(config=wanted)
    except ProcessLimit as error: say('ulimit -n' in str(error))
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
import cachee_shm.config
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
try: cachee_shm.attach(config=arguments['path'])
except ConfigError as error: say('ulimit -n' in str(error))
"""
    with child(code, wanted=config, path=str(tmp_path / "cachee.toml")) as limited:
        (tmp_path / "cachee.toml").write_text("[defaults]\n")
        assert limited.end() == ["True"] * 3


def test_no_file_is_left_whichever_descriptor_is_missing(config):
    code = """
import cachee_shm.config, resource
from cachee_shm.errors import ProcessLimit
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for more in range(8):
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 + more, hard))
    try:
        cachee_shm.attach(config=arguments['wanted']).close()
        break
    except ProcessLimit:
        say(os.path.exists(arguments['file']))
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
"""
    with child(code, wanted=config, file=file_of(segment_path(config["host"]["name"], "shop"))) as limited:
        said = limited.end()
    assert len(said) >= 2 and set(said) == {"False"}
