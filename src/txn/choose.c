/*
 * choose.c - which of the superblocks that were found is taken
 *
 * The newest one, unless it says UNVERIFIED, nothing proves that it was complete
 * (format.h), and something of its generation is missing: then the machine went
 * down before that commit was done, nobody was told that it was, and its
 * predecessor is taken. That one is complete, for its blocks are not reused before
 * its successor is durable; if it is UNVERIFIED, too, the passed one proves it, as
 * it goes on from it. What cannot be read now (store.c, 5) may be there, so nobody
 * goes back for writing because of it, but for a repair.
 */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "txn/private.h"

static void use_super(struct store *s, const struct super *sb)
{
	s->super = sb->d;
	s->p->durable = sb->d;
	s->p->durable_gen = sb->gen;
	block_init(&s->io, s->dev, sb->total_blocks, !s->p->readonly);
	s->io.salvage = s->p->repair;
	s->io.quiet = s->p->quiet;
}

/* Is there proof that all of generation `gen` was there (format.h)? What rots
 * later must not take back what was durable. -ENOMEM. */
static int proven(struct store *s, const struct super_scan *scan, unsigned i,
		  bool *yes)
{
	const struct super *sb = &scan->found[i];

	*yes = super_proven(&sb->d);
	while (!*yes && i-- > 0)
		*yes = super_goes_on_from(&scan->found[i].d, sb->gen);
	return *yes ? 0 : log_begun(s, yes);
}

/* Can this superblock, of those found, be believed? */
static int trusted(struct store *s, const struct super_scan *scan, unsigned i)
{
	const struct super *sb = &scan->found[i];
	bool yes;
	int err = proven(s, scan, i, &yes);

	s->p->verified = false;
	if (err || yes)
		return err;
	err = recover_verify(s, &sb->d, !s->p->readonly);
	s->p->verified = !err;
	if (err == -EIO)
		s->p->passed_unread = true;
	if (err && err != -ENOMEM)
		log_msg(LOG_LVL_WARN, "%s: the commit of generation %" PRIu64
			" %s (%s)", s->dev->name, sb->gen, err == -EIO ?
			"cannot be read, and may be there" :
			"was not finished, or has rotted since",
			strerror(-err));
	return err;
}

/* After this nothing older will do. */
static bool is_final(const struct store *s, int err)
{
	return err == -ENOMEM ||
	       (err == -EIO && !s->p->readonly && !s->p->repair);
}

#define TIME_TEXT 32

static const char *time_text(const struct super *sb, char out[TIME_TEXT])
{
	time_t sec = (time_t)time_from_disk(sb->d.wrote).sec;
	struct tm tm;

	if (!localtime_r(&sec, &tm) ||
	    !strftime(out, TIME_TEXT, "%F %T", &tm))
		snprintf(out, TIME_TEXT, "?");
	return out;
}

/* What going back from the newest superblock to a good one gives up. */
static void tell_passed(struct store *s, const struct super_scan *scan,
			unsigned index)
{
	const struct super *from = &scan->found[0], *to = &scan->found[index];
	char then[TIME_TEXT], now[TIME_TEXT];

	s->p->passed_gen = from->gen;
	log_msg(LOG_LVL_WARN, "%s: going back from generation %" PRIu64
		" (%s) to generation %" PRIu64 " (%s): what was changed "
		"between them is %s", s->dev->name, from->gen,
		time_text(from, now), to->gen, time_text(to, then),
		s->p->readonly ? "left out" : "given up");
}

int super_choose(struct store *s, const struct store_config *cfg,
		 const struct super_scan *scan, unsigned *index)
{
	unsigned i;
	int err = -ENOENT;

	for (i = 0; i < scan->count; i++) {
		if (cfg->use_gen && scan->found[i].gen != cfg->use_gen)
			continue;
		use_super(s, &scan->found[i]);
		/* asked for by name, it is shown with the holes that it has */
		err = cfg->use_gen && s->p->readonly ?
			      0 : trusted(s, scan, i);
		if (!err || is_final(s, err) || cfg->use_gen)
			break;
	}
	if (err && err != -ENOMEM && err != -ENOENT && s->p->repair) {
		/* better the newest with holes than nothing */
		i = cfg->use_gen ? i : 0;
		use_super(s, &scan->found[i]);
		err = 0;
	}
	if (err == -EIO && is_final(s, err))
		return report(err, "%s: not opened for writing", s->dev->name);
	if (err)
		return report(err, "%s: no usable superblock%s", s->dev->name,
			      cfg->use_gen ? " of that generation" : "");
	if (i && !cfg->use_gen)
		tell_passed(s, scan, i);
	*index = i;
	return 0;
}
