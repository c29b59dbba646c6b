/*
 * daemon.h - the daemon: what the files of src/fuse share
 *
 *   D1  Nothing that the kernel asks waits for the kernel: callbacks call the
 *       fs layer and reply. What must wait for requests of the kernel (writing
 *       back its dirty pages, dropping its caches) is done by the control
 *       thread, which holds no lock meanwhile.
 *   D2  A node id names one inode of one tree: the live tree as it is now, or
 *       one snapshot. After a restore all ids of the live tree but the root's
 *       are new; the old ones give -ESTALE and change nothing.
 *   D3  Every lookup count that the kernel holds of an id that is not stale is
 *       one reference in the fs layer (live) or one on the view (snapshots).
 *
 * Locks, outermost first:
 *
 *   G  d->gate          shared: a callback from looking at the epoch to the end
 *                       of its work; exclusive: the swap of a restore. Nobody
 *                       notifies the kernel while holding it (but of the epoch,
 *                       or of the attributes of a file that is being opened,
 *                       which wait for nothing).
 *   V  d->views.lock    node ids of snapshots (leaf)
 *   Q  d->control.lock  jobs (leaf)
 *   R  d->dirahead.lock pieces of listings (leaf)
 *   -  d->flight.lock   waiting for what it guards nothing of (leaf)
 *   -  all locks of the layers below come after G
 */
#ifndef COW_DAEMON_H
#define COW_DAEMON_H

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "check/check.h"
#include "cowfs/bdev.h"
#include "cowfs/ioctl.h"
#include "fs/fs.h"
#include "fuse/opts.h"
#include "util/list.h"
#include "util/util.h"

/* The kernel may keep what it was told until it is told otherwise. */
#define FOREVER (10.0 * 365 * 86400)

/* ---- node ids (nodeid.c) ---- */

#define NID_INO_BITS 48
#define NID_INO_MASK ((UINT64_C(1) << NID_INO_BITS) - 1)
#define NID_VIEW (UINT64_C(1) << 63)
#define NID_INDEX_BITS 15
#define NID_INDEX_MAX 0x7fffu
/* The directory that lists snapshots; view index 0 is not used otherwise. */
#define NID_SNAPDIR (NID_VIEW | 2)
#define SNAPDIR_NAME ".snapshots"
#define SNAPDIR_INO 2u /* its st_ino; inodes of users begin at 256 */

enum nid_kind { NID_LIVE, NID_SNAPSHOT, NID_LISTING };

/* A node id taken apart. */
struct nid {
	enum nid_kind kind;
	struct view *view; /* NULL for the listing */
	uint64_t ino;
	unsigned index;    /* of the view; 0: live */
};

struct view_slot {
	struct view *view; /* V  NULL: slot is free */
	uint64_t refs;     /* V  lookup counts, and requests under way */
};

struct view_table {
	struct mutex lock;
	struct view_slot *slot; /* V */
	unsigned room;          /* V  slots allocated */
};

/* ---- jobs of the control thread (control.c) ---- */

/* A request from being read to being answered. */
struct request {
	bool open;       /* there is one */
	uint32_t opcode;
	uint64_t unique;
	uint64_t began;  /* now_ns() */
};

enum job_kind {
	JOB_MEET, /* look at the mount for the first time */
	JOB_SYNC,
	JOB_SNAP_CREATE,
	JOB_SNAP_DELETE,
	JOB_SNAP_RESTORE,
	JOB_SETTING,
	JOB_MIRROR,    /* a side more, or less (sides.c) */
	JOB_FULL,      /* make a file's attributes invalid (full.c) */
	JOB_BLOCKS,    /* and those of all that are written (ops_file.c) */
	JOB_SEEK,      /* in a file of which the kernel has more (seek.c) */
	JOB_RANGE,     /* make a part of a file invalid (ops_file.c); ino 0: all
			  of all files */
	JOB_PRUNE,     /* forget a file unless it is in use (ops_file.c) */
	JOB_QUIT,      /* unmount in order */
};

struct seek {
	fuse_ino_t ino;
	uint64_t off;
	int whence; /* SEEK_DATA, SEEK_HOLE */
};

struct range {
	fuse_ino_t ino;
	uint64_t from, to;
};

struct job {
	struct list list;
	enum job_kind kind;
	fuse_req_t req; /* to answer; NULL: nobody asked */
	struct request request; /* its clock, if there is one */
	uint64_t due;   /* not before now_ns() is that */
	unsigned tries; /* JOB_PRUNE: so far */
	union {
		struct cowfs_ioc_snap snap;
		struct cowfs_ioc_restore restore;
		struct cowfs_ioc_setting setting;
		struct cowfs_ioc_mirror mirror;
		struct seek seek;
		struct range range;
		fuse_ino_t ino;
	};
};

struct control {
	struct mutex lock;
	pthread_cond_t wake;
	struct list jobs; /* Q */
	unsigned notes;   /* Q  of these, that nobody waits for */
	bool ending;      /* Q */
	bool started;     /* - */
	pthread_t thread; /* - */
};

/* ---- the daemon ---- */

/* Who reads the next request (turn.c). */
struct turn {
	sem_t free;       /* 1: nobody has the turn */
	uint64_t poll_ns; /* -  0: do not look before sleeping */
	/* whoever has the turn: */
	unsigned streak;
	int luck, lost;
};

/* Processors that are not to fall asleep (awake.c). */
struct awake {
	sem_t wanted;
	pthread_t thread;
	int32_t latency;        /* -  microseconds that waking one up may take */
	bool started;           /* - */
	_Atomic bool ending;
	_Atomic bool held;      /* or wanted */
	_Atomic uint64_t seen;  /* requests; counted by whoever has the turn, */
	unsigned rush;          /* who alone looks at this */
};

/* A piece of a listing: what READDIR asks for. */
struct dir_place {
	fuse_ino_t id;
	uint64_t after; /* cookie */
	size_t size;    /* bytes that the answer may have */
};

struct dir_answer {
	char *buf;
	size_t used;
	uint64_t last; /* cookie of the last entry in it */
	bool full;     /* more follow */
};

/* One that was made before it was asked for (dirahead.c). */
struct dir_piece {
	struct dir_place at;
	uint64_t changes; /* fs_changes() when it was begun */
	bool making;
	struct dir_answer a; /* buf NULL: there is none */
};

#define DIRAHEAD_PIECES 4u

struct dirahead {
	struct mutex lock;
	pthread_cond_t made;
	/* R: all below */
	struct dir_piece piece[DIRAHEAD_PIECES]; /* making: a is the maker's */
	unsigned left_out; /* how many more are not made */
};

/* Requests that hold what the kernel writes back, or are queued with such
 * (flight.c). */
struct flight {
	struct mutex lock;
	pthread_cond_t changed;
	unsigned room; /* -  the kernel sends so many at a time, or more */
	_Atomic unsigned marks;  /* messages that came; counted, as what follows, */
	_Atomic uint64_t seen;   /* by whoever has the turn */
	_Atomic uint64_t pages;  /* that they held, at least one each */
	_Atomic uint64_t seen_then; /* when the last message came */
	_Atomic uint64_t busy[2]; /* not answered, by the lowest bit of marks */
	_Atomic bool waited_for;
};

struct daemon {
	const struct options *opt; /* - */
	struct bdev *dev;          /* - */
	struct store *store;       /* - */
	struct fs *fs;             /* - */
	struct scrub *scrub;       /* - */
	struct fuse_session *se;   /* - */
	/* -  The session's device once more: the library closes its own while the
	 * control thread may still answer, and the number may then be another
	 * file's. -1: none. */
	int fuse_fd;
	struct requests *requests; /* - */
	uint64_t began;            /* -  now_ns() */
	pthread_key_t worker_key;  /* -  struct worker of the thread */
	struct half_list {
		_Atomic(struct half *) first; /* see worker.c */
	} halves;
	uint32_t owner;            /* -  uid that mounted */
	bool system_root;          /* -  we are, and not only of a namespace */
	bool root_only;            /* -  see session.c */
	int guard_fd;              /* -  see guard.c; -1: none */
	pid_t guard;               /* - */

	struct rwlock gate;
	/* restores in this mount, modulo 2^15; changed with G held exclusively */
	_Atomic unsigned epoch;

	struct view_table views;
	struct control control;
	struct turn turn;
	struct awake awake;
	struct dirahead dirahead;
	struct flight flight;

	/* INIT; set by the thread that serves it, before any other request */
	_Atomic uint64_t init_unique;
	bool offered_killpriv;
	bool keeps_past; /* the kernel: pages that are written past its cache */
	bool copies_pages; /* the kernel: see flight.c */
	bool keep_opendir; /* the kernel needs opendir to be answered */

	int ready_fd; /* to the parent waiting until requests are served; -1 */
	_Atomic uint64_t device; /* st_dev of the mount; 0: not known yet */
	_Atomic int64_t snapdir_sec; /* mtime of .snapshots */

	pthread_t main_thread; /* - */
	pthread_t signal_thread; /* - */
	bool signals_started;  /* - */
	_Atomic bool loop_ended;

	_Atomic bool draining;      /* inval_drain is at work */
	_Atomic bool stored;        /* the kernel has written cached pages */
	_Atomic bool growing;       /* and JOB_BLOCKS will be done */
	_Atomic bool moved;         /* ioctl.h: info */
	_Atomic bool full;          /* see full.c */
	_Atomic uint64_t full_left; /* blocks that were available then */
	_Atomic uint64_t full_until; /* now_ns() when it is tried again */
};

/* What a thread that serves requests has for itself. */
struct worker {
	struct request request;
	bool kill_priv; /* this request is to clear set-id bits */
	bool has_turn;
	struct turn *turn;
	void *buf;      /* page-aligned */
	size_t size;
	struct half *half; /* buf is one; NULL: it is its own */
	bool counted;   /* in flight->busy, */
	unsigned phase; /* this one */
};

/* ---- nodeid.c ---- */

void nid_init(struct daemon *d);
void nid_fini(struct daemon *d); /* gives views back; before fs_umount */

/* The gate, shared. */
void gate_enter(struct daemon *d);
void gate_leave(struct daemon *d);

/* G: take an id apart; nid_put afterwards. -ESTALE. */
MUST_CHECK int nid_get(struct daemon *d, fuse_ino_t id, struct nid *n);
void nid_put(struct daemon *d, const struct nid *n);
/* Both in one: enter, get / put, leave. After an error the gate is open. */
MUST_CHECK int nid_enter(struct daemon *d, fuse_ino_t id, struct nid *n);
void nid_leave(struct daemon *d, const struct nid *n);
/* As nid_enter, but only the live tree (-EROFS for snapshots), and only if it was
 * not replaced meanwhile (-ESTALE). */
MUST_CHECK int nid_enter_live(struct daemon *d, fuse_ino_t id, struct nid *n);
/* G: the same for a second node of the request. */
MUST_CHECK int nid_get_live(struct daemon *d, fuse_ino_t id, struct nid *n);

/* G: id of inode ino in the tree that n is in. */
fuse_ino_t nid_make(struct daemon *d, const struct nid *n, uint64_t ino);
fuse_ino_t nid_live(struct daemon *d, uint64_t ino);
/* st_ino of inode ino in the tree that n is in. */
uint64_t nid_st_ino(const struct nid *n, uint64_t ino);

/* The kernel will know one more / n fewer times of inode ino in n's tree. */
MUST_CHECK int nid_ref(struct daemon *d, const struct nid *n, uint64_t ino);
void nid_unref(struct daemon *d, const struct nid *n, uint64_t ino,
	       uint64_t count);
/* G, FORGET: whatever epoch the id is of. */
void nid_forget(struct daemon *d, fuse_ino_t id, uint64_t count);

/* G: the node for the root of a snapshot's view; takes over one count of the
 * view, which it gives back on error. nid_put afterwards. -ENFILE. */
MUST_CHECK int nid_of_view(struct daemon *d, struct view *v, struct nid *n);

/* ---- reply.c ---- */

static inline struct daemon *req_daemon(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* Negative errno to the kernel. Damage that shows the trees to be wrong stops
 * writing if the mount says so (-o errors=). */
void reply_err(fuse_req_t req, int err);
/* The same for requests that read file data: a wrong checksum may be that of
 * data, which says nothing about the trees. */
void reply_data_err(fuse_req_t req, int err);

void attr_to_stat(const struct nid *n, const struct attr *a, struct stat *st);
/* G: answer with attributes. */
void reply_attr(fuse_req_t req, const struct nid *n, const struct attr *a);
void fill_entry(struct daemon *d, const struct nid *n, const struct attr *a,
		struct fuse_entry_param *e);
/* G: count a reference and answer with an entry in n's tree; the reference is
 * taken back if the answer does not arrive. */
void reply_entry(fuse_req_t req, const struct nid *n, const struct attr *a);
void reply_negative(fuse_req_t req);

/* Who asks; arg of in_group is the request. */
struct cred req_cred(fuse_req_t req);

/* ---- caller.c ---- */

/* Owner and root may do what changes the filesystem as a whole. */
bool caller_may_control(struct daemon *d, fuse_req_t req);

/* Of such a one: may he name files to us, or is he in a container that was given
 * a part of the mount? */
bool caller_sees_our_files(struct daemon *d, fuse_req_t req);

/* ---- worker.c: what a serving thread has for itself ---- */

MUST_CHECK int worker_init(struct daemon *d);
void worker_fini(struct daemon *d);
/* NULL: no memory. */
struct worker *worker_self(struct daemon *d);
/* At least size bytes, aligned to a page; good until the next call by this
 * thread. NULL: no memory. */
void *worker_buf(struct daemon *d, size_t size);
/* Is this request to clear set-id bits? */
bool worker_kill_priv(struct daemon *d);

/* ---- turn.c: one thread at a time waits for requests ---- */

void turn_init(struct daemon *d);
void turn_fini(struct daemon *d); /* no thread serves any more */
/* read(2) of a request, when it is this thread's turn. A cancellation point. */
ssize_t turn_read(struct daemon *d, int fd, void *buf, size_t len);
/* Let another thread have the turn, if w has it. */
void turn_pass(struct worker *w);

/* ---- awake.c: no deep sleep while requests follow each other ---- */

/* After turn_init. Does without what it can't have. */
void awake_start(struct daemon *d);
void awake_stop(struct daemon *d); /* no thread serves any more */
/* Whoever has the turn has read a request after so many nanoseconds. */
void awake_note(struct daemon *d, uint64_t waited);

/*
 * How long requests take: from being read until just before the answer is
 * written (so whoever got the answer finds it counted), or, of those that have
 * none, until the thread is free again.
 */
void worker_begin(struct worker *w, uint32_t opcode, uint64_t unique);
/* The answer to `unique` is about to be written by this thread. */
void worker_answer(struct daemon *d, uint64_t unique);
/* This thread is free. */
void worker_end(struct daemon *d);
/* The request goes to another thread: what that one has to take over. */
struct request worker_hand_over(struct daemon *d);
void worker_take_over(struct daemon *d, const struct request *r);

/* ---- requests.c: counting them ---- */

#define REQUEST_KINDS 64u /* opcodes; 0 stands for all greater ones */

struct requests;
MUST_CHECK int requests_new(struct requests **out);
void requests_free(struct requests *r); /* NULL is fine */
void requests_add(struct requests *r, uint32_t opcode, uint64_t ns);
/* The histogram of the first opcode from *at on that was seen, and *at moves
 * past it; false: there is none, *at is REQUEST_KINDS or what it was. */
bool requests_next(const struct requests *r, uint64_t *at,
		   struct cowfs_ioc_hist *out);

/* ---- raw.c: the protocol where libfuse is too old for it ---- */

MUST_CHECK int raw_install(struct daemon *d);
void raw_remove(struct daemon *d); /* nobody answers any more */
/* Have the kernel look all names up again; false: it is too old for that. */
bool raw_inc_epoch(struct daemon *d);
/* Have it forget these nodes, in this order, where nobody uses them and it knows
 * of nothing below them. An old kernel does not. */
void raw_prune(struct daemon *d, uint64_t *id, size_t n);

/* Have it send a message, which comes after all that waits to be read. false: it
 * does not know this regular file. */
bool raw_ask_message(struct daemon *d, uint64_t id);

/* ---- flight.c: what the kernel has sent ---- */

#define FLIGHT_ROOM 1024u /* max_background where this is used */

struct fuse_in_header;
void flight_init(struct daemon *d);
void flight_fini(struct daemon *d); /* no thread serves any more */
/* By whoever has the turn: w has read this. */
void flight_note(struct daemon *d, struct worker *w,
		 const struct fuse_in_header *in);
/* The answer has been written, or there is none. */
void flight_end(struct daemon *d, struct worker *w);
/* The control thread, no lock held: until all that the kernel had begun to write
 * back has arrived. id: of a regular file that it knows; false: it does not. */
bool flight_wait(struct daemon *d, uint64_t id);

/* ---- snapdir.c: the virtual directory .snapshots ---- */

bool snapdir_is_name(const struct nid *dir, const char *name);
void snapdir_attr(struct daemon *d, struct attr *out);
void snapdir_reply_entry(fuse_req_t req);
/* G: look up a snapshot by name in it. */
void snapdir_lookup(fuse_req_t req, const char *name);
MUST_CHECK int snapdir_readdir(struct daemon *d, uint64_t after,
			       fs_readdir_fn *fn, void *arg);

/* ---- dirahead.c: what a listing will be asked for next ---- */

void dirahead_init(struct daemon *d);
void dirahead_fini(struct daemon *d); /* no thread serves any more */
/* G: the answer for this place of the live tree, into out->buf of at->size
 * bytes; false: it is not there, or not true any more. */
bool dirahead_take(struct daemon *d, const struct dir_place *at,
		   struct dir_answer *out);
/* G, until dirahead_end: the caller makes the answer for this place, in p->a.
 * NULL: it is not wanted. */
struct dir_piece *dirahead_begin(struct daemon *d, const struct dir_place *at);
void dirahead_end(struct daemon *d, struct dir_piece *p, bool good);

/* ---- ops_*.c: the callbacks ---- */

/* in fi->fh: */
#define HANDLE_WRITES 1u  /* opened for writing */
#define HANDLE_APPENDS 2u /* past the kernel's cache (only_appends) */
#define HANDLE_SYNC 4u    /* opened with O_SYNC or O_DSYNC */

/* A name was made, moved or removed (or err): with -o dirsync or sync it is
 * durable before the answer. */
MUST_CHECK int name_changed(struct daemon *d, int err);
/* A file was changed by other means than the kernel's cache (or err): with -o
 * sync, or by such a handle (fi may be NULL), it is durable before the answer. */
MUST_CHECK int file_changed(struct daemon *d, const struct fuse_file_info *fi,
			    int err);

void ops_node(struct fuse_lowlevel_ops *ops);
void ops_name(struct fuse_lowlevel_ops *ops);
void ops_file(struct fuse_lowlevel_ops *ops);
void ops_seek(struct fuse_lowlevel_ops *ops);
void ops_dir(struct fuse_lowlevel_ops *ops);
void ops_xattr(struct fuse_lowlevel_ops *ops);
void ops_ioctl(struct fuse_lowlevel_ops *ops);

/* ---- info.c ---- */

MUST_CHECK int info_fill(struct daemon *d, struct cowfs_ioc_info *out);
MUST_CHECK int info_stats(struct daemon *d, struct cowfs_ioc_stats *out);
/* l->from: in and out; the rest out. */
void info_hists(struct daemon *d, struct cowfs_ioc_hist_list *l);
void info_snap(const struct snap_info *in, struct cowfs_ioc_snap *out);

/* ---- control.c ---- */

MUST_CHECK int control_start(struct daemon *d);
/* No request is served any more: answer what is left and end the thread. */
void control_stop(struct daemon *d);
/* Queue a job; takes it over. -ENOMEM, -ESHUTDOWN, and of jobs that nobody waits
 * for -ENOBUFS (there are too many): nothing was queued. */
MUST_CHECK int control_add(struct daemon *d, const struct job *job);
/* The same for a job with a request, which this thread was to answer; if nothing
 * was queued it is answered with the error. */
void control_hand_over(struct daemon *d, struct job *job);

/* Tell the parent, if one waits: what is wrong is told in the log from now on;
 * requests are served. false: it is gone. */
#define DAEMON_OPENED 'o'
#define DAEMON_READY 'r'
bool control_tell(struct daemon *d, char what);

/* Changing a part of a file failed on the way: some of it may be done, but the
 * kernel drops its pages only when all is, and would show what was there until
 * it has another use for them. Any thread. (ops_file.c) */
void range_in_doubt(struct daemon *d, fuse_ino_t ino, off_t off, off_t len);

/* ---- inval.c: only the control thread calls these; no lock held ---- */

/* Have the kernel write back everything written to open files. -ENOMEM: not of
 * all of them. What could not be stored fs_take_lost tells. */
MUST_CHECK int inval_drain(struct daemon *d);
/* Pages of one node from byte `from` to before byte `to` (UINT64_MAX: all that
 * follow): written back, and forgotten. */
void inval_range(struct daemon *d, fuse_ino_t id, uint64_t from, uint64_t to);
/* Pages of all that the kernel knows of. */
void inval_all(struct daemon *d);
/* The attributes of one node, not its contents. */
void inval_attr(struct daemon *d, fuse_ino_t id);
/* Of all files that are open for writing. */
void inval_written(struct daemon *d);
/* What the kernel knew of a tree that is gone from the mount. */
struct inval_list;
MUST_CHECK int inval_collect(struct daemon *d, struct inval_list **out);
/* Names in the root now, too. */
MUST_CHECK int inval_add_root(struct daemon *d, struct inval_list *l);
/* G is allowed: before the tree is another, every name is to be looked up again. */
void inval_begin(struct daemon *d, struct inval_list *l);
/* When it returns no name and no open file shows the old tree. */
void inval_send(struct daemon *d, const struct inval_list *l);
/* Afterwards: what of it is left in memory. */
void inval_send_rest(struct daemon *d, struct inval_list *l);
void inval_free(struct inval_list *l); /* NULL is fine */
/* Snapshots have come or gone. name: who is not there any more, or is another
 * one now; or NULL. */
void inval_snapdir(struct daemon *d, const char *name);
/* Afterwards: all that the kernel knows below that name, one by one. */
void inval_snapdir_rest(struct daemon *d, const char *name);

/* ---- main.c ---- */

/* /dev/null in place of the terminal, or of whatever the process was given. */
void null_stdio(void);

/* ---- session.c ---- */

/* Make the session and mount it. Reported. */
MUST_CHECK int session_open(struct daemon *d);
/* Serve until unmounted or told to stop: 0 or -errno. */
MUST_CHECK int session_run(struct daemon *d);
/* End session_run; any thread. */
void session_stop(struct daemon *d);
/* Unmount if that has not happened. */
void session_close(struct daemon *d);
/* Ask the kernel (or fusermount3) to unmount in order. -EBUSY, ... */
MUST_CHECK int session_umount(struct daemon *d);
/* Device number of what is mounted at our directory, without asking ourselves. */
MUST_CHECK int session_device(struct daemon *d, dev_t *dev);

/* ---- signal.c ---- */

/* Block what ends the daemon in this thread and those it starts. */
void signals_block(void);
MUST_CHECK int signals_start(struct daemon *d);
void signals_stop(struct daemon *d);

/* ---- limits.c ---- */

/* As far as may be; before anything is opened. */
void limits_raise(void);
/* May all of the image be written? -EFBIG, with a message. */
MUST_CHECK int limits_allow(const struct options *o, const struct bdev *dev);
/* What ending threads takes is there from now on. */
void limits_try_cancel(void);

/* ---- guard.c ---- */

/* Start the process that aborts the connection if the daemon is killed: from
 * the main thread, while little is in memory. */
void guard_start(struct daemon *d);
/* Tell it which connection. */
void guard_arm(struct daemon *d);
void guard_stop(struct daemon *d);

/* ---- beneath.c ---- */

/* Does path, a file or a device, lie on the filesystem that is device fs, however
 * many others are between them? */
bool beneath_lies_on(const char *path, dev_t fs);

/* ---- sides.c: mirrors; the control thread ---- */

/* Go on filling a side if that was interrupted by a crash or an unmount, not by
 * who asked for it. Once, after store_start. */
void sides_resume(struct daemon *d);
/* ioctl.h: COWFS_IOC_MIRROR. */
MUST_CHECK int sides_change(struct daemon *d, const struct cowfs_ioc_mirror *m);

/* ---- seek.c ---- */

/* Answer a request with pages written back; the control thread. */
void seek_run(struct daemon *d, fuse_req_t req, const struct seek *s);

/* ---- full.c ---- */

/* A page of this node that the kernel held could not be stored: -ENOSPC. */
void full_note(struct daemon *d, fuse_ino_t ino);
/* Is a question for attributes to be answered with ENOSPC? fi may be NULL. */
bool full_refuses(struct daemon *d, const struct fuse_file_info *fi);

/* ---- remount.c ---- */

/* Change the flags of the mount at o->dir; says what is wrong. */
MUST_CHECK int remount(const struct options *o);

/* ---- recovery.c: -o recovery ---- */

/* Which generation was asked for; 0: none. Errors are printed. */
MUST_CHECK int recovery_pick(struct daemon *d, uint64_t *gen);
/* d->store was opened with it: is all there? Says what is not. */
MUST_CHECK int recovery_look(struct daemon *d, uint64_t gen);

#endif
