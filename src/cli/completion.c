/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir completion: scripts for shells, from the tables of verbs and options. */
#include "cli/cli.h"

#include <string.h>

#define EACH_VERB(v) (unsigned i_ = 0; (v = cli_verbs[i_]) != NULL; i_++)

/* Calls fn for the verb's own options and the common ones. */
static void each_opt(struct cli *c, const struct cli_verb *v,
                     void (*fn)(struct cli *c, const struct cli_verb *v, const struct opt *o))
{
    const struct opt *tables[] = {v->opts, cli_verb_common(v)};

    for (unsigned i = 0; i < ARRAY_LEN(tables); i++) {
        for (const struct opt *o = tables[i]; o != NULL && o->name != NULL; o++)
            fn(c, v, o);
    }
}

static void print_words(struct cli *c, const char *words)
{
    for (; *words != '\0'; words++)
        cli_print(c, "%c", *words == '|' ? ' ' : *words);
}

/* Text inside '...' of any of the shells: without quotes and what else could end it. */
static void print_quoted(struct cli *c, const char *text, bool zsh)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            cli_print(c, "%s", zsh ? "'\\''" : "\\'");
        else if (zsh && strchr("[]:", *text) != NULL)
            cli_print(c, "\\%c", *text);
        else
            cli_print(c, "%c", *text);
    }
}

/* --- bash */

static void bash_opt(struct cli *c, const struct cli_verb *v, const struct opt *o)
{
    cli_print(c, " --%s", o->name);
}

static void bash_choice(struct cli *c, const struct cli_verb *v, const struct opt *o)
{
    if (o->type == OPT_CHOICE) {
        cli_print(c, "    %s:--%s) words=\"", v->name, o->name);
        print_words(c, o->value);
        cli_print(c, "\" ;;\n");
    } else if (o->type != OPT_FLAG && o->type != OPT_FILE) {
        cli_print(c, "    %s:--%s) return ;;\n", v->name, o->name);
    } else if (o->type == OPT_FILE) {
        cli_print(c, "    %s:--%s) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", v->name,
                  o->name);
    }
}

static void bash(struct cli *c)
{
    const struct cli_verb *v;

    cli_print(c, "# bash completion of kvasir; load with: source <(kvasir completion bash)\n"
                 "_kvasir() {\n"
                 "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} "
                 "verb=${COMP_WORDS[1]} words=\n"
                 "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
                 "    COMPREPLY=($(compgen -W \"");
    for
        EACH_VERB(v)
    cli_print(c, "%s ", v->name);
    cli_print(c, "\" -- \"$cur\")); return\n  fi\n  case $verb:$prev in\n");
    for
        EACH_VERB(v)
    each_opt(c, v, bash_choice);
    cli_print(c, "  esac\n  if [ \"$COMP_CWORD\" -eq 2 ] && [ -z \"$words\" ]; then\n"
                 "    case $verb in\n");
    for
        EACH_VERB(v)
        {
            if (v->commands == NULL)
                continue;
            cli_print(c, "    %s) [ \"${cur#-}\" = \"$cur\" ] && words=\"", v->name);
            print_words(c, v->commands);
            cli_print(c, "\" ;;\n");
        }
    cli_print(c, "    esac\n  fi\n  if [ -z \"$words\" ]; then\n    case $cur in\n"
                 "    -*) case $verb in\n");
    for
        EACH_VERB(v)
        {
            cli_print(c, "      %s) words=\"", v->name);
            each_opt(c, v, bash_opt);
            cli_print(c, "\" ;;\n");
        }
    cli_print(c, "      esac ;;\n"
                 "    *) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
                 "    esac\n  fi\n"
                 "  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
                 "complete -o filenames -F _kvasir kvasir\n");
}

/* --- zsh */

static void zsh_opt(struct cli *c, const struct cli_verb *v, const struct opt *o)
{
    cli_print(c, "        '%s--%s%s[", o->repeats ? "*" : "", o->name,
              o->type != OPT_FLAG ? "=" : "");
    print_quoted(c, o->help, true);
    cli_print(c, "]");
    if (o->type == OPT_CHOICE) {
        cli_print(c, ":%s:(", o->name);
        print_words(c, o->value);
        cli_print(c, ")");
    } else if (o->type != OPT_FLAG) {
        cli_print(c, ":%s:%s", o->value, o->type == OPT_FILE ? "_files" : "");
    }
    cli_print(c, "' \\\n");
}

static void zsh(struct cli *c)
{
    const struct cli_verb *v;

    cli_print(c, "#compdef kvasir\n"
                 "# zsh completion of kvasir; save as _kvasir in a directory of $fpath\n"
                 "_kvasir() {\n"
                 "  local -a verbs=(\n");
    for
        EACH_VERB(v)
        {
            cli_print(c, "    '%s:", v->name);
            print_quoted(c, v->summary, true);
            cli_print(c, "'\n");
        }
    cli_print(c, "  )\n"
                 "  if (( CURRENT == 2 )); then _describe verb verbs; return; fi\n"
                 "  local verb=$words[2]\n  words=($words[2,-1]); (( CURRENT-- ))\n"
                 "  case $verb in\n");
    for
        EACH_VERB(v)
        {
            cli_print(c, "    %s) _arguments -s \\\n", v->name);
            each_opt(c, v, zsh_opt);
            if (v->commands != NULL) {
                cli_print(c, "        '1:command:(");
                print_words(c, v->commands);
                cli_print(c, ")' \\\n");
            }
            cli_print(c, "        '*:argument:_files' ;;\n");
        }
    cli_print(c, "  esac\n}\n_kvasir \"$@\"\n");
}

/* --- fish */

static void fish_opt(struct cli *c, const struct cli_verb *v, const struct opt *o)
{
    cli_print(c, "complete -c kvasir -n '__fish_seen_subcommand_from %s' -l %s", v->name, o->name);
    if (o->letter != 0)
        cli_print(c, " -s %c", o->letter);
    if (o->type == OPT_CHOICE) {
        cli_print(c, " -x -a '");
        print_words(c, o->value);
        cli_print(c, "'");
    } else if (o->type == OPT_FILE) {
        cli_print(c, " -r -F");
    } else if (o->type != OPT_FLAG) {
        cli_print(c, " -x");
    }
    cli_print(c, " -d '");
    print_quoted(c, o->help, false);
    cli_print(c, "'\n");
}

static void fish(struct cli *c)
{
    const struct cli_verb *v;

    cli_print(c, "# fish completion of kvasir; load with: kvasir completion fish | source\n");
    for
        EACH_VERB(v)
        {
            cli_print(c, "complete -c kvasir -n __fish_use_subcommand -f -a %s -d '", v->name);
            print_quoted(c, v->summary, false);
            cli_print(c, "'\n");
            if (v->commands == NULL)
                continue;
            cli_print(c, "complete -c kvasir -n '__fish_seen_subcommand_from %s' -a '", v->name);
            print_words(c, v->commands);
            cli_print(c, "'\n");
        }
    for
        EACH_VERB(v)
    each_opt(c, v, fish_opt);
}

static int completion_plain(struct cli *c)
{
    const char *shell = cli_arg(c, 0);

    if (strcmp(shell, "bash") == 0)
        bash(c);
    else if (strcmp(shell, "zsh") == 0)
        zsh(c);
    else if (strcmp(shell, "fish") == 0)
        fish(c);
    else
        return cli_usage(c, "no completion for '%s'; there are: bash zsh fish", shell);
    return 0;
}

const struct cli_verb verb_completion = {
    .name = "completion",
    .args = "bash|zsh|fish",
    .summary = "print a completion script for a shell",
    .about = "Prints a script that lets the shell complete verbs, their commands and options.",
    .examples = "source <(kvasir completion bash)\n"
                "kvasir completion zsh > ~/.zfunc/_kvasir\n"
                "kvasir completion fish > ~/.config/fish/completions/kvasir.fish",
    .args_min = 1,
    .args_max = 1,
    .plain = completion_plain,
};
