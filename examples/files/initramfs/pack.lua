-- pack.lua: write to standard output a cpio archive (newc, what the kernel unpacks) of the paths
-- that standard input gives as lines "TYPE PERMISSIONS PATH", with TYPE d, f or l. Everything that
-- differs between file systems and runs (inodes, link counts, times, owners) is made up.

local inode = 0

local function pad(length)
    return ("\0"):rep(-length % 4)
end

local function add(path, mode, data)
    inode = inode + 1
    local fields = {inode, mode, 0, 0, 1, 0, #data, 0, 0, 0, 0, #path + 1, 0}
    for index, value in ipairs(fields) do
        fields[index] = ("%08X"):format(value)
    end
    local header = "070701" .. table.concat(fields) .. path .. "\0"
    io.write(header, pad(#header), data, pad(#data))
end

local function output_of(command)
    local pipe = assert(io.popen(command))
    local text = pipe:read("a")
    assert(pipe:close())
    return text
end

for line in io.lines() do
    local kind, permissions, path = line:match("^(%a) (%d+) (.+)$")
    permissions = tonumber(permissions, 8)
    if kind == "d" then
        add(path, 0x4000 + permissions, "")
    elseif kind == "f" then
        local file <close> = assert(io.open(path, "rb"))
        add(path, 0x8000 + permissions, file:read("a"))
    elseif kind == "l" then
        add(path, 0xA000 + 511, output_of("readlink -n '" .. path .. "'"))
    else
        error("can't pack this: " .. line)
    end
end
inode = -1
add("TRAILER!!!", 0, "")
