"""What Unix needs of a daemon, each part alone and synchronous: the supervisor is built of these.

A part is loaded when its name is first asked for (PEP 562). None of them loads asyncio, logging,
dataclasses or anything that is not in the standard library; ``ctypes`` is loaded by what needs it, when it
is called.
"""

from typing import TYPE_CHECKING

from tamed._lazy import lazy_face

if TYPE_CHECKING:
    from tamed.daemon._capabilities import Capability, CapabilitySets, capability_sets
    from tamed.daemon._descriptors import (
        close_inherited,
        close_on_exec,
        fill_standard_descriptors,
        silence_standard_descriptors,
    )
    from tamed.daemon._detach import detach, leave_terminal
    from tamed.daemon._family import Relative, beginning_of, children_of, descendants_of, members_of
    from tamed.daemon._holder import holder
    from tamed.daemon._identity import Identity, acting_for
    from tamed.daemon._journal import JOURNAL_SOCKET, JournalSender, encode_fields, is_journal
    from tamed.daemon._launch import Launch, be_subreaper
    from tamed.daemon._limits import limit_open_files
    from tamed.daemon._lines import LineReader
    from tamed.daemon._logfile import LogFile
    from tamed.daemon._notify import Notifier, watchdog_interval
    from tamed.daemon._outbox import Outbox
    from tamed.daemon._pidfile import PidFile
    from tamed.daemon._privileges import (
        change_root,
        drop_privileges,
        forbid_tracing,
        is_traceable,
        require_keepable,
    )
    from tamed.daemon._process import ProcessHandle, end_by_signal
    from tamed.daemon._records import Damage, Origin, Record, RecordReader, encode_origin, encode_record
    from tamed.daemon._report import Report, Reporter
    from tamed.daemon._rotation import Rotation
    from tamed.daemon._rundir import Instance, InstanceFolder, RunDirectory, check_name, default_run_directory
    from tamed.daemon._syslog import SyslogMessage
    from tamed.daemon._syslogaddress import SyslogAddress
    from tamed.daemon._syslogsender import SyslogSender
    from tamed.daemon._threads import require_single_thread
    from tamed.daemon._unixsocket import bind_unix, connect_unix

__all__ = [
    "JOURNAL_SOCKET",
    "Capability",
    "CapabilitySets",
    "Damage",
    "Identity",
    "Instance",
    "InstanceFolder",
    "JournalSender",
    "Launch",
    "LineReader",
    "LogFile",
    "Notifier",
    "Origin",
    "Outbox",
    "PidFile",
    "ProcessHandle",
    "Record",
    "RecordReader",
    "Relative",
    "Report",
    "Reporter",
    "Rotation",
    "RunDirectory",
    "SyslogAddress",
    "SyslogMessage",
    "SyslogSender",
    "acting_for",
    "be_subreaper",
    "beginning_of",
    "bind_unix",
    "capability_sets",
    "change_root",
    "check_name",
    "children_of",
    "close_inherited",
    "close_on_exec",
    "connect_unix",
    "default_run_directory",
    "descendants_of",
    "detach",
    "drop_privileges",
    "encode_fields",
    "encode_origin",
    "encode_record",
    "end_by_signal",
    "fill_standard_descriptors",
    "forbid_tracing",
    "holder",
    "is_journal",
    "is_traceable",
    "leave_terminal",
    "limit_open_files",
    "members_of",
    "require_keepable",
    "require_single_thread",
    "silence_standard_descriptors",
    "watchdog_interval",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_face(
        __name__,
        {
            "JOURNAL_SOCKET": "._journal",
            "Capability": "._capabilities",
            "CapabilitySets": "._capabilities",
            "Damage": "._records",
            "Identity": "._identity",
            "Instance": "._rundir",
            "InstanceFolder": "._rundir",
            "JournalSender": "._journal",
            "Launch": "._launch",
            "LineReader": "._lines",
            "LogFile": "._logfile",
            "Notifier": "._notify",
            "Origin": "._records",
            "Outbox": "._outbox",
            "PidFile": "._pidfile",
            "ProcessHandle": "._process",
            "Record": "._records",
            "RecordReader": "._records",
            "Relative": "._family",
            "Report": "._report",
            "Reporter": "._report",
            "Rotation": "._rotation",
            "RunDirectory": "._rundir",
            "SyslogAddress": "._syslogaddress",
            "SyslogMessage": "._syslog",
            "SyslogSender": "._syslogsender",
            "acting_for": "._identity",
            "be_subreaper": "._launch",
            "beginning_of": "._family",
            "bind_unix": "._unixsocket",
            "capability_sets": "._capabilities",
            "change_root": "._privileges",
            "check_name": "._rundir",
            "children_of": "._family",
            "close_inherited": "._descriptors",
            "close_on_exec": "._descriptors",
            "connect_unix": "._unixsocket",
            "default_run_directory": "._rundir",
            "descendants_of": "._family",
            "detach": "._detach",
            "leave_terminal": "._detach",
            "drop_privileges": "._privileges",
            "encode_fields": "._journal",
            "encode_origin": "._records",
            "encode_record": "._records",
            "end_by_signal": "._process",
            "fill_standard_descriptors": "._descriptors",
            "forbid_tracing": "._privileges",
            "holder": "._holder",
            "is_journal": "._journal",
            "is_traceable": "._privileges",
            "limit_open_files": "._limits",
            "members_of": "._family",
            "require_keepable": "._privileges",
            "require_single_thread": "._threads",
            "silence_standard_descriptors": "._descriptors",
            "watchdog_interval": "._notify",
        },
    )


def __dir__() -> list[str]:
    return __all__
