-- Holds and draws the one ghost text there is.
--
-- In: an inline completion item, the cursor.
-- Out: extmarks while it is shown; an edit of the buffer when it is accepted.
-- Never: talks to the server.

local M = {}

local namespace = vim.api.nvim_create_namespace("tandem")

---@class tandem.Ghost
---@field buf integer
---@field row integer the cursor's row, 0-based
---@field col integer the cursor's column in bytes
---@field text string what is not typed yet
---@field head string the cursor's line up to the cursor
---@field tail string the cursor's line from the cursor on
---@field n_replaced integer bytes of `tail` that accepting replaces
---@field command? lsp.Command runs after accepting
---@type tandem.Ghost?
local ghost

local function cursor()
  local at = vim.api.nvim_win_get_cursor(0)
  return at[1] - 1, at[2]
end

local function line_at(buf, row)
  return vim.api.nvim_buf_get_lines(buf, row, row + 1, false)[1] or ""
end

-- Virtual text does not know 'tabstop': a tab in it shows as ^I.
local function expand_tabs(buf, text)
  return (text:gsub("\t", (" "):rep(vim.bo[buf].tabstop)))
end

local function draw()
  local g = assert(ghost)
  vim.api.nvim_buf_clear_namespace(g.buf, namespace, 0, -1)
  local lines = vim.split(expand_tabs(g.buf, g.text), "\n", { plain = true })
  local below = {}
  for i = 2, #lines do
    below[i - 1] = { { lines[i], "TandemGhost" } }
  end
  vim.api.nvim_buf_set_extmark(g.buf, namespace, g.row, g.col, {
    virt_text = lines[1] ~= "" and { { lines[1], "TandemGhost" } } or nil,
    virt_text_pos = "inline",
    virt_lines = #below > 0 and below or nil,
    hl_mode = "combine",
  })
  if g.n_replaced > 0 then
    vim.api.nvim_buf_set_extmark(g.buf, namespace, g.row, g.col, {
      end_col = g.col + g.n_replaced,
      hl_group = "TandemReplaced",
    })
  end
end

---Defines the colours a colour scheme has not defined.
function M.highlight()
  local comment = vim.api.nvim_get_hl(0, { name = "Comment", link = false })
  -- Neovim's own Comment has no terminal colour, and ghost text must not look like text.
  comment.ctermfg = comment.ctermfg or 8
  comment.default = true
  vim.api.nvim_set_hl(0, "TandemGhost", comment --[[@as vim.api.keyset.highlight]])
  vim.api.nvim_set_hl(0, "TandemReplaced", { default = true, strikethrough = true, cterm = { strikethrough = true } })
end

function M.clear()
  if ghost and vim.api.nvim_buf_is_valid(ghost.buf) then
    vim.api.nvim_buf_clear_namespace(ghost.buf, namespace, 0, -1)
  end
  ghost = nil
end

---Shows `item` at the cursor of the current window, unless it does not fit what is there.
---@param buf integer
---@param item table lsp.InlineCompletionItem
---@param encoding string
function M.show(buf, item, encoding)
  M.clear()
  local insert = item.insertText
  if type(insert) == "table" then
    -- A StringValue is a snippet, and we announced that we do not take snippets.
    insert = insert.value
  end
  insert = insert:gsub("\r\n?", "\n")
  local row, col = cursor()
  local line = line_at(buf, row)
  local n_replaced = 0
  if item.range then
    local from, to = item.range.start, item.range["end"]
    if from.line ~= row or to.line ~= row then
      return
    end
    -- A column past the end of the line is its end, one inside a character that character's end.
    local from_byte = vim.str_byteindex(line, encoding, from.character, false)
    local to_byte = vim.str_byteindex(line, encoding, to.character, false)
    local typed = line:sub(from_byte + 1, col)
    if from_byte > col or to_byte < col or insert:sub(1, #typed) ~= typed then
      return
    end
    insert = insert:sub(#typed + 1)
    -- What stays the same behind the cursor is neither drawn nor replaced.
    local replaced = line:sub(col + 1, to_byte)
    if insert:sub(-#replaced) == replaced then
      insert = insert:sub(1, #insert - #replaced)
    else
      n_replaced = #replaced
    end
  end
  if insert == "" then
    return
  end
  ghost = {
    buf = buf,
    row = row,
    col = col,
    text = insert,
    head = line:sub(1, col),
    tail = line:sub(col + 1),
    n_replaced = n_replaced,
    command = item.command,
  }
  draw()
end

-- Returns what is left of the ghost text at the cursor, and the cursor; nil where it does not stand any more.
-- Autocommands run once no key waits, so a key may find the ghost text of a text that is gone.
local function left_at_cursor()
  local g = ghost
  if not g or g.buf ~= vim.api.nvim_get_current_buf() then
    return nil
  end
  local row, col = cursor()
  if row < g.row or (row == g.row and col < g.col) then
    return nil
  end
  if line_at(g.buf, row):sub(col + 1) ~= g.tail or line_at(g.buf, g.row):sub(1, g.col) ~= g.head then
    return nil
  end
  local typed = table.concat(vim.api.nvim_buf_get_text(g.buf, g.row, g.col, row, col, {}), "\n")
  if #typed >= #g.text or g.text:sub(1, #typed) ~= typed then
    return nil
  end
  return g.text:sub(#typed + 1), row, col
end

---Returns whether the ghost text stands at the cursor: unmoved, or typed-through.
---@return boolean
function M.stands()
  return left_at_cursor() ~= nil
end

---Moves the ghost text to the cursor where it was typed-through; returns whether it stands.
---@return boolean
function M.follow()
  local left, row, col = left_at_cursor()
  if not left then
    return false
  end
  local g = assert(ghost)
  if left ~= g.text then
    g.row, g.col, g.text = row, col, left
    g.head = line_at(g.buf, row):sub(1, col)
    draw()
  end
  return true
end

---Makes the first part of the ghost text real, if it stands: `all`, the next `line` or the next `word`.
---@param part "all"|"line"|"word"
---@return lsp.Command? command the item's command, once all of it is accepted
function M.accept(part)
  if not M.follow() then
    return nil
  end
  local g = assert(ghost)
  local text = g.text
  if part == "line" then
    text = text:match("^\n?[^\n]*")
  elseif part == "word" then
    -- A word with the blanks before it; else one run of other characters.
    local word = vim.fn.matchstr(text, [=[^\_s*\%(\k\+\|[^[:keyword:][:space:]]\+\)]=])
    text = word ~= "" and word or text
  end
  local is_all = #text == #g.text
  local lines = vim.split(text, "\n", { plain = true })
  local n_replaced = is_all and g.n_replaced or 0
  vim.api.nvim_buf_set_text(g.buf, g.row, g.col, g.row, g.col + n_replaced, lines)
  local last = lines[#lines]
  local col = #lines == 1 and g.col + #last or #last
  vim.api.nvim_win_set_cursor(0, { g.row + #lines, col })
  if is_all then
    M.clear()
    return g.command
  end
  M.follow()
  return nil
end

return M
