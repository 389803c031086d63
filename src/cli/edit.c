/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/edit.h"

#include "cli/sql_table.h"

#include "base/util.h"
#include "rt/io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define LINE_MAX_BYTES (64 * KIB)
#define WORDS_SHOWN 200

enum key {
    KEY_UP = 256,
    KEY_DOWN,
    KEY_RIGHT,
    KEY_LEFT,
    KEY_HOME,
    KEY_END,
    KEY_DELETE,
    KEY_WORD_LEFT,
    KEY_WORD_RIGHT,
    KEY_NONE,
};

struct edit {
    struct edit_config cfg;
    struct history history;
    struct termios cooked;
    const char *prompt;
    char in[256]; /* read, not yet taken */
    size_t in_at, in_len;
    char *buf; /* the line; LINE_MAX_BYTES */
    size_t len, cursor;
    char *killed;   /* for Ctrl-Y */
    unsigned place; /* in the history; history.n is the new line */
    char *new_line; /* kept while others of the history are shown */
    bool searching; /* Ctrl-R */
    char wanted[64];
    size_t wanted_len;
    bool tabbed; /* the last key was Tab and changed nothing */
};

void edit_word_add(struct edit_words *w, const char *text, size_t len)
{
    for (unsigned i = 0; i < w->n; i++) {
        if (strlen(w->word[i]) == len && memcmp(w->word[i], text, len) == 0)
            return;
    }
    if (w->n == w->cap) {
        unsigned cap = MAX(32u, 2 * w->cap);
        char **bigger = realloc(w->word, cap * sizeof(*bigger));

        if (bigger == NULL)
            return;
        w->word = bigger;
        w->cap = cap;
    }
    w->word[w->n] = strndup(text, len);
    if (w->word[w->n] != NULL)
        w->n++;
}

static void words_free(struct edit_words *w)
{
    for (unsigned i = 0; i < w->n; i++)
        free(w->word[i]);
    free(w->word);
}

struct edit *edit_new(const struct edit_config *cfg)
{
    struct edit *e = calloc(1, sizeof(*e));

    if (e == NULL)
        return NULL;
    e->cfg = *cfg;
    e->buf = malloc(LINE_MAX_BYTES + 1);
    if (e->buf == NULL) {
        free(e);
        return NULL;
    }
    e->history.path = cfg->history;
    history_load(&e->history);
    return e;
}

void edit_free(struct edit *e)
{
    if (e == NULL)
        return;
    history_free(&e->history);
    free(e->buf);
    free(e->killed);
    free(e->new_line);
    free(e);
}

void edit_remember(struct edit *e, const char *line)
{
    history_add(&e->history, line);
}

/* --- the terminal ----------------------------------------------------------------------------- */

static void send_text(struct edit *e, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(e->cfg.out, text, len);

        if (n < 0 && errno != EINTR)
            return;
        if (n > 0) {
            text += n;
            len -= (size_t)n;
        }
    }
}

static int raw_mode(struct edit *e)
{
    struct termios raw;

    if (tcgetattr(e->cfg.in, &e->cooked) < 0)
        return -errno;
    raw = e->cooked;
    raw.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INPCK | ISTRIP | IXON);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    return tcsetattr(e->cfg.in, TCSADRAIN, &raw) < 0 ? -errno : 0;
}

static unsigned columns(const struct edit *e)
{
    struct winsize size;

    if (ioctl(e->cfg.out, TIOCGWINSZ, &size) < 0 || size.ws_col < 10)
        return 80;
    return size.ws_col;
}

static size_t char_after(const struct edit *e, size_t i)
{
    i = MIN(i + 1, e->len);
    while (i < e->len && (e->buf[i] & 0xc0) == 0x80)
        i++;
    return i;
}

static size_t char_before(const struct edit *e, size_t i)
{
    i -= i > 0;
    while (i > 0 && (e->buf[i] & 0xc0) == 0x80)
        i--;
    return i;
}

/* One line of the terminal; a longer text shows the part around the cursor. */
static void show(struct edit *e)
{
    unsigned width = columns(e), prompt_width = (unsigned)strlen(e->prompt), room, at;
    size_t first = 0, last;
    char *text = NULL;
    char search[100] = "";
    int n;

    if (e->searching) {
        snprintf(search, sizeof(search), "search '%.*s': ", (int)e->wanted_len, e->wanted);
        prompt_width = sql_text_width(search, strlen(search));
    }
    room = width > prompt_width + 10 ? width - prompt_width - 1 : 10;
    while (sql_text_width(e->buf + first, e->cursor - first) > room)
        first = char_after(e, first);
    last = e->cursor;
    while (last < e->len && sql_text_width(e->buf + first, char_after(e, last) - first) <= room)
        last = char_after(e, last);
    at = prompt_width + sql_text_width(e->buf + first, e->cursor - first);
    n = asprintf(&text, "\r%s%.*s\033[K\r\033[%uC", e->searching ? search : e->prompt,
                 (int)(last - first), e->buf + first, at);
    if (n > 0)
        send_text(e, text, (size_t)n);
    free(text);
}

static int next_byte(struct rt_task *t, struct edit *e)
{
    ssize_t n;
    int rc;

    if (e->in_at < e->in_len)
        return (uint8_t)e->in[e->in_at++];
    rc = rt_fd_readable(t, e->cfg.in);
    if (rc < 0)
        return rc;
    n = read(e->cfg.in, e->in, sizeof(e->in));
    if (n <= 0)
        return n < 0 ? -errno : -EPIPE;
    e->in_len = (size_t)n;
    e->in_at = 1;
    return (uint8_t)e->in[0];
}

static int escape_key(struct rt_task *t, struct edit *e)
{
    char seq[16];
    size_t n = 0;
    int c = next_byte(t, e);

    if (c == 'b' || c == 'f')
        return c == 'b' ? KEY_WORD_LEFT : KEY_WORD_RIGHT;
    if (c != '[' && c != 'O')
        return c < 0 ? c : KEY_NONE;
    do {
        c = next_byte(t, e);
        if (c < 0)
            return c;
        if (n < sizeof(seq) - 1)
            seq[n++] = (char)c;
    } while (c < 0x40 || c > 0x7e);
    seq[n] = '\0';
    if (strcmp(seq, "1;5D") == 0 || strcmp(seq, "1;5C") == 0)
        return c == 'D' ? KEY_WORD_LEFT : KEY_WORD_RIGHT;
    if (c == '~')
        return seq[0] == '1' || seq[0] == '7'   ? KEY_HOME
               : seq[0] == '4' || seq[0] == '8' ? KEY_END
               : seq[0] == '3'                  ? KEY_DELETE
                                                : KEY_NONE;
    return c == 'A'   ? KEY_UP
           : c == 'B' ? KEY_DOWN
           : c == 'C' ? KEY_RIGHT
           : c == 'D' ? KEY_LEFT
           : c == 'H' ? KEY_HOME
           : c == 'F' ? KEY_END
                      : KEY_NONE;
}

/* --- changes ---------------------------------------------------------------------------------- */

static void set_line(struct edit *e, const char *text)
{
    e->len = MIN(strlen(text), LINE_MAX_BYTES);
    memmove(e->buf, text, e->len);
    e->cursor = e->len;
}

static void insert(struct edit *e, const char *text, size_t len)
{
    if (e->len + len > LINE_MAX_BYTES)
        return;
    memmove(e->buf + e->cursor + len, e->buf + e->cursor, e->len - e->cursor);
    memcpy(e->buf + e->cursor, text, len);
    e->len += len;
    e->cursor += len;
}

static void cut(struct edit *e, size_t from, size_t to, bool keep)
{
    if (keep && to > from) {
        free(e->killed);
        e->killed = strndup(e->buf + from, to - from);
    }
    memmove(e->buf + from, e->buf + to, e->len - to);
    e->len -= to - from;
    e->cursor = from;
}

static size_t word_before(const struct edit *e)
{
    size_t i = e->cursor;

    while (i > 0 && e->buf[i - 1] == ' ')
        i--;
    while (i > 0 && e->buf[i - 1] != ' ')
        i--;
    return i;
}

static size_t word_after(const struct edit *e)
{
    size_t i = e->cursor;

    while (i < e->len && e->buf[i] == ' ')
        i++;
    while (i < e->len && e->buf[i] != ' ')
        i++;
    return i;
}

static void go_in_history(struct edit *e, bool up)
{
    unsigned n = e->history.n, to = up ? e->place - (e->place > 0) : MIN(e->place + 1, n);

    if (to == e->place)
        return;
    if (e->place == n) {
        free(e->new_line);
        e->new_line = strndup(e->buf, e->len);
    }
    e->place = to;
    set_line(e, to < n ? e->history.line[to] : e->new_line != NULL ? e->new_line : "");
}

/* --- completion ------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static size_t common(const struct edit_words *w)
{
    size_t len = strlen(w->word[0]);

    for (unsigned i = 1; i < w->n; i++) {
        size_t k = 0;

        while (k < len && w->word[i][k] == w->word[0][k])
            k++;
        len = k;
    }
    while (len > 0 && (w->word[0][len] & 0xc0) == 0x80)
        len--; /* no half characters */
    return len;
}

static void show_words(struct edit *e, const struct edit_words *w)
{
    unsigned widest = 0, per_line;
    char more[64];

    for (unsigned i = 0; i < w->n; i++)
        widest = MAX(widest, sql_text_width(w->word[i], strlen(w->word[i])));
    per_line = MAX(1u, columns(e) / (widest + 2));
    for (unsigned i = 0; i < MIN(w->n, WORDS_SHOWN); i++) {
        char *cell = NULL;
        unsigned pad = widest + 2 - sql_text_width(w->word[i], strlen(w->word[i]));
        int n = asprintf(&cell, "%s%s%*s", i % per_line == 0 ? "\r\n" : "", w->word[i],
                         (i + 1) % per_line == 0 ? 0 : (int)pad, "");

        if (n > 0)
            send_text(e, cell, (size_t)n);
        free(cell);
    }
    if (w->n > WORDS_SHOWN) {
        snprintf(more, sizeof(more), "\r\n... and %u more", w->n - WORDS_SHOWN);
        send_text(e, more, strlen(more));
    }
    send_text(e, "\r\n", 2);
}

static void complete(struct rt_task *t, struct edit *e)
{
    struct edit_words w = {.from = e->cursor};
    size_t cursor = e->cursor, len;

    if (e->cfg.complete == NULL)
        return;
    e->buf[e->len] = '\0';
    e->cfg.complete(t, e->cfg.arg, e->buf, e->cursor, &w);
    if (w.n > 0) {
        qsort(w.word, w.n, sizeof(*w.word), by_text);
        len = common(&w);
        if (w.n == 1 || len > cursor - w.from) {
            cut(e, w.from, cursor, false);
            insert(e, w.word[0], len);
            if (w.n == 1 && e->cursor == e->len)
                insert(e, " ", 1);
            e->tabbed = false;
        } else if (e->tabbed) {
            show_words(e, &w);
        } else {
            e->tabbed = true;
            send_text(e, "\a", 1);
        }
    }
    words_free(&w);
}

/* --- Ctrl-R ----------------------------------------------------------------------------------- */

static void find_older(struct edit *e, unsigned below)
{
    e->wanted[e->wanted_len] = '\0';
    while (below > 0) {
        if (strstr(e->history.line[--below], e->wanted) != NULL) {
            e->place = below;
            set_line(e, e->history.line[below]);
            return;
        }
    }
    send_text(e, "\a", 1);
}

/* True when the key belongs to the search. */
static bool search_key(struct edit *e, int key)
{
    if (key == CTRL('R')) {
        find_older(e, e->place);
    } else if (key == 127 || key == CTRL('H')) {
        e->wanted_len -= e->wanted_len > 0;
        find_older(e, e->history.n);
    } else if (key >= 32 && key < 256 && e->wanted_len < sizeof(e->wanted) - 1) {
        e->wanted[e->wanted_len++] = (char)key;
        find_older(e, MIN(e->place + 1, e->history.n));
    } else {
        e->searching = false;
        return key == CTRL('G');
    }
    return true;
}

/* --- keys ------------------------------------------------------------------------------------- */

static void move_key(struct edit *e, int key)
{
    switch (key) {
    case CTRL('A'):
    case KEY_HOME:
        e->cursor = 0;
        break;
    case CTRL('E'):
    case KEY_END:
        e->cursor = e->len;
        break;
    case CTRL('B'):
    case KEY_LEFT:
        e->cursor = char_before(e, e->cursor);
        break;
    case CTRL('F'):
    case KEY_RIGHT:
        e->cursor = char_after(e, e->cursor);
        break;
    case KEY_WORD_LEFT:
        e->cursor = word_before(e);
        break;
    case KEY_WORD_RIGHT:
        e->cursor = word_after(e);
        break;
    case CTRL('P'):
    case KEY_UP:
        go_in_history(e, true);
        break;
    case CTRL('N'):
    case KEY_DOWN:
        go_in_history(e, false);
        break;
    }
}

static void change_key(struct edit *e, int key)
{
    char c = (char)key;

    switch (key) {
    case 127:
    case CTRL('H'):
        cut(e, char_before(e, e->cursor), e->cursor, false);
        break;
    case CTRL('D'):
    case KEY_DELETE:
        cut(e, e->cursor, char_after(e, e->cursor), false);
        break;
    case CTRL('K'):
        cut(e, e->cursor, e->len, true);
        break;
    case CTRL('U'):
        cut(e, 0, e->cursor, true);
        break;
    case CTRL('W'):
        cut(e, word_before(e), e->cursor, true);
        break;
    case CTRL('Y'):
        if (e->killed != NULL)
            insert(e, e->killed, strlen(e->killed));
        break;
    case CTRL('L'):
        send_text(e, "\033[H\033[2J", 7);
        break;
    case CTRL('R'):
        e->searching = true;
        e->wanted_len = 0;
        break;
    default:
        if (key >= 32 && key < 256)
            insert(e, &c, 1);
    }
}

/* 1: a line; 0: not yet; negative: see edit_line(), and -EPIPE for the end. */
static int take_key(struct rt_task *t, struct edit *e)
{
    int key = next_byte(t, e);

    if (key == 27)
        key = escape_key(t, e);
    if (key < 0)
        return key;
    if (e->searching && search_key(e, key))
        return 0;
    if (key == '\r' || key == '\n')
        return 1;
    if (key == CTRL('C'))
        return -EINTR;
    if (key == CTRL('D') && e->len == 0)
        return -EPIPE;
    if (key == '\t') {
        complete(t, e);
        return 0;
    }
    e->tabbed = false;
    change_key(e, key);
    move_key(e, key);
    return 0;
}

int edit_line(struct rt_task *t, struct edit *e, const char *prompt, char **out_line)
{
    int rc = raw_mode(e);

    if (rc < 0)
        return rc;
    e->prompt = prompt;
    e->len = e->cursor = 0;
    e->place = e->history.n;
    e->searching = e->tabbed = false;
    do {
        /* What was pasted is shown when all of it has been taken. */
        if (e->in_at == e->in_len)
            show(e);
        rc = take_key(t, e);
    } while (rc == 0);
    e->cursor = e->len;
    show(e);
    send_text(e, rc == -EINTR ? "^C\n" : "\n", rc == -EINTR ? 3 : 1);
    tcsetattr(e->cfg.in, TCSADRAIN, &e->cooked);
    if (rc == -EPIPE)
        return 0;
    if (rc < 0)
        return rc;
    *out_line = strndup(e->buf, e->len);
    return *out_line == NULL ? -ENOMEM : 1;
}
