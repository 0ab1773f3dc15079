import './generated.js'
