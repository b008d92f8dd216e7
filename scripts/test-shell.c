/* A shell so small that it builds anywhere and links statically: the /bin/sh of systems made by tests.
 *
 * It is started in exactly two ways:
 *
 *     sh -x -e -c COMMAND     as builds start the commands of a chunk
 *     sh SCRIPT               as the kernel starts a script with #!/bin/sh
 *
 * The text is worked through line by line. The lines it knows:
 *
 *     copy files          copy the working directory into $DESTDIR, without what starts with ./.git
 *     false [...]         stop, with exit status 1
 *     echo TEXT           print TEXT, whatever bytes it has
 *     printvar NAME       print an environment variable
 *     create file PATH    write everything after this line to PATH
 *     file exists PATH    stop: with status 0 if there is such a file, with 1 if there is not
 *     # ..., set ...      nothing, so that scripts may begin like those of a real shell
 *
 * Any other line, an empty one too, ends the shell with status 127. Failing to read or write ends it with 1.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SUCCESS = 0, FAILURE = 1, UNKNOWN_COMMAND = 127 };

/* What a line led to: go on with the next one, or end with this exit status. */
enum { GO_ON = -1 };

enum { MODE_BITS = 07777, FILES_WANTED_OPEN = 65536 };

static bool starts_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

static bool complain(const char *doing, const char *name)
{
	fprintf(stderr, "sh: %s %s: %s\n", doing, name, strerror(errno));
	return false;
}

/* ---- Copying trees ------------------------------------------------------------------------------------------ */

/* The directory that is being filled, which must not be copied into itself when it lies in the working directory. */
struct target {
	dev_t device;
	ino_t inode;
};

static bool copy_directory(int from, int to, bool top, const struct target *target);

static bool write_all(int to, const char *bytes, size_t size)
{
	while (size > 0) {
		ssize_t written = write(to, bytes, size);
		if (written < 0) {
			if (errno == EINTR)
				continue;
			return false;
		}
		bytes += written;
		size -= (size_t)written;
	}
	return true;
}

static bool copy_bytes(int from, int to)
{
	static char buffer[128 * 1024];

	for (;;) {
		ssize_t got = read(from, buffer, sizeof buffer);
		if (got == 0)
			return true;
		if (got < 0) {
			if (errno == EINTR)
				continue;
			return false;
		}
		if (!write_all(to, buffer, (size_t)got))
			return false;
	}
}

/* Take away what stands where something else is about to be put. A directory stays, and so what follows fails. */
static void make_way(int to, const char *name)
{
	(void)unlinkat(to, name, 0);
}

static bool copy_file(int from_dir, int to_dir, const char *name, mode_t mode)
{
	bool copied = false;
	int to = -1;
	int from = openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (from < 0)
		return complain("reading", name);
	make_way(to_dir, name);
	to = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0)
		complain("creating", name);
	else if (!copy_bytes(from, to) || fchmod(to, mode & MODE_BITS) < 0)
		complain("copying", name);
	else
		copied = true;
	if (to >= 0 && close(to) < 0 && copied)
		copied = complain("writing", name);
	close(from);
	return copied;
}

static bool copy_symlink(int from_dir, int to_dir, const char *name)
{
	size_t size = 256;
	char *text = NULL;
	bool copied = false;

	for (;;) {
		char *bigger = realloc(text, size);
		ssize_t length;

		if (bigger == NULL)
			break;
		text = bigger;
		length = readlinkat(from_dir, name, text, size);
		if (length < 0)
			break;
		if ((size_t)length < size) {
			text[length] = '\0';
			make_way(to_dir, name);
			copied = symlinkat(text, to_dir, name) == 0;
			break;
		}
		size *= 2;
	}
	if (!copied)
		complain("copying the symlink", name);
	free(text);
	return copied;
}

static bool copy_subdirectory(int from_dir, int to_dir, const char *name, mode_t mode, const struct target *target)
{
	bool copied = false;
	int to = -1;
	int from = openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (from < 0)
		return complain("reading", name);
	if (mkdirat(to_dir, name, 0700) < 0 && errno != EEXIST)
		complain("creating", name);
	else if ((to = openat(to_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
		complain("opening", name);
	else if (copy_directory(from, to, false, target))
		/* Last, since the directory may be one that nothing can be put into. */
		copied = fchmod(to, mode & MODE_BITS) == 0 || complain("setting the mode of", name);
	if (to >= 0)
		close(to);
	close(from);
	return copied;
}

static bool copy_entry(int from, int to, const char *name, const struct target *target)
{
	struct stat status;

	if (fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return complain("reading", name);
	if (S_ISDIR(status.st_mode)) {
		if (status.st_dev == target->device && status.st_ino == target->inode)
			return true;
		return copy_subdirectory(from, to, name, status.st_mode, target);
	}
	if (S_ISREG(status.st_mode))
		return copy_file(from, to, name, status.st_mode);
	if (S_ISLNK(status.st_mode))
		return copy_symlink(from, to, name);
	fprintf(stderr, "sh: copying %s: neither directory, file nor symlink\n", name);
	return false;
}

static bool copy_directory(int from, int to, bool top, const struct target *target)
{
	bool copied = true;
	int listing = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *entries = listing < 0 ? NULL : fdopendir(listing);

	if (entries == NULL) {
		if (listing >= 0)
			close(listing);
		return complain("listing", "a directory");
	}
	while (copied) {
		struct dirent *entry;

		errno = 0;
		entry = readdir(entries);
		if (entry == NULL) {
			if (errno != 0)
				copied = complain("listing", "a directory");
			break;
		}
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (top && starts_with(entry->d_name, ".git"))
			continue;
		copied = copy_entry(from, to, entry->d_name, target);
	}
	closedir(entries);
	return copied;
}

/* Each level of a tree keeps three files open. */
static void allow_many_open_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	if (limit.rlim_cur >= FILES_WANTED_OPEN)
		return;
	limit.rlim_cur = limit.rlim_max < FILES_WANTED_OPEN ? limit.rlim_max : FILES_WANTED_OPEN;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int copy_files(void)
{
	const char *destination = getenv("DESTDIR");
	struct stat status;
	struct target target;
	bool copied = false;
	int from = -1;
	int to = -1;

	if (destination == NULL || *destination == '\0') {
		fprintf(stderr, "sh: copy files: DESTDIR is not set\n");
		return FAILURE;
	}
	allow_many_open_files();
	if (mkdir(destination, 0777) < 0 && errno != EEXIST)
		complain("creating", destination);
	else if ((to = open(destination, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 || fstat(to, &status) < 0)
		complain("opening", destination);
	else if ((from = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		complain("opening", "the working directory");
	else {
		target.device = status.st_dev;
		target.inode = status.st_ino;
		copied = copy_directory(from, to, true, &target);
	}
	if (to >= 0)
		close(to);
	if (from >= 0)
		close(from);
	return copied ? GO_ON : FAILURE;
}

/* ---- The other commands ------------------------------------------------------------------------------------- */

static int print_bytes(const char *bytes, size_t size)
{
	/* At once, so that what a build prints stands in its log in order. */
	if (fwrite(bytes, 1, size, stdout) != size || putchar('\n') == EOF || fflush(stdout) == EOF) {
		complain("printing", "to standard output");
		return FAILURE;
	}
	return GO_ON;
}

static int print_variable(const char *name)
{
	const char *value = getenv(name);

	if (value == NULL)
		value = "(null)";
	return print_bytes(value, strlen(value));
}

/* The rest of the input becomes the content of the file, so this ends the shell. */
static int create_file(const char *path, FILE *input)
{
	static char buffer[128 * 1024];
	int to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	bool written = to >= 0;

	while (written) {
		size_t got = fread(buffer, 1, sizeof buffer, input);
		if (got == 0)
			break;
		written = write_all(to, buffer, got);
	}
	written = written && !ferror(input);
	if (!written)
		complain("creating", path);
	if (to >= 0 && close(to) < 0 && written)
		written = complain("writing", path);
	return written ? SUCCESS : FAILURE;
}

static int check_file(const char *path)
{
	struct stat status;
	bool exists = stat(path, &status) == 0;

	fprintf(stderr, "sh: %s: %s\n", path, exists ? "exists" : strerror(errno));
	return exists ? SUCCESS : FAILURE;
}

static int run_line(const char *line, size_t size, FILE *input)
{
	static const char echo[] = "echo ";
	static const char printvar[] = "printvar ";
	static const char create[] = "create file ";
	static const char exists[] = "file exists ";

	if (strcmp(line, "copy files") == 0)
		return copy_files();
	if (strcmp(line, "false") == 0 || starts_with(line, "false "))
		return FAILURE;
	if (starts_with(line, echo))
		return print_bytes(line + strlen(echo), size - strlen(echo));
	if (starts_with(line, printvar))
		return print_variable(line + strlen(printvar));
	if (starts_with(line, create))
		return create_file(line + strlen(create), input);
	if (starts_with(line, exists))
		return check_file(line + strlen(exists));
	if (line[0] == '#' || starts_with(line, "set "))
		return GO_ON;
	fprintf(stderr, "Unrecognized command: %s\n", line);
	return UNKNOWN_COMMAND;
}

static int run_lines(FILE *input)
{
	char *line = NULL;
	size_t room = 0;
	int result = GO_ON;

	while (result == GO_ON) {
		ssize_t size;

		errno = 0;
		size = getline(&line, &room, input);
		if (size < 0) {
			result = SUCCESS;
			if (ferror(input) || errno == ENOMEM) {
				complain("reading", "commands");
				result = FAILURE;
			}
			break;
		}
		if (line[size - 1] == '\n')
			line[--size] = '\0';
		result = run_line(line, (size_t)size, input);
	}
	free(line);
	return result;
}

int main(int argc, char *argv[])
{
	const char *name = "the command";
	FILE *input;
	int result;

	if (argc == 5 && strcmp(argv[1], "-x") == 0 && strcmp(argv[2], "-e") == 0 && strcmp(argv[3], "-c") == 0) {
		if (*argv[4] == '\0')
			return SUCCESS; /* fmemopen() may refuse to make a stream of no bytes */
		input = fmemopen(argv[4], strlen(argv[4]), "r");
	} else if (argc == 2) {
		name = argv[1];
		input = fopen(name, "re");
	} else {
		fprintf(stderr, "usage: sh -x -e -c COMMAND\n       sh SCRIPT\n");
		return FAILURE;
	}
	if (input == NULL) {
		complain("opening", name);
		return FAILURE;
	}
	result = run_lines(input);
	fclose(input);
	return result;
}
